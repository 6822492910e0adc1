"""Images in shards: here, in a store that fsspec reads from a folder, and on a real S3 server."""

from __future__ import annotations

import multiprocessing
import shutil
import tarfile
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import fsspec
import numpy as np
import pytest

from aerofuse.common.params import load_section
from aerofuse.data.dataset import EpochBatches, PreparedSplit, TrainingLoader
from aerofuse.data.photo import Photo
from aerofuse.data.shard_cache import ShardCache, ShardCacheParams
from aerofuse.data.shards import ShardParams, check_store
from aerofuse.data.store import PhotoStore, write_photos
from aerofuse.data.transforms import AugmentationParams, make_augmentation
from tests.data.made_up_photos import CLASSES, made_up_photos
from tests.ingest.remote_photos import failures_in_fork, use
from tests.s3_server import S3Server, s3_server

_PHOTOS = 60
_SIZE = "24 kB"


def _shards(url: str | None = None) -> ShardParams:
    return ShardParams(size=_SIZE, url=url)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write_photos(tmp_path / "file.arrow", made_up_photos(_PHOTOS), "stretch")
    return tmp_path / "file.arrow"


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """In shards beside their index."""
    write_photos(tmp_path / "here.arrow", made_up_photos(_PHOTOS), "stretch", _shards())
    return tmp_path / "here.arrow"


@pytest.fixture
def cache_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Path]:
    """Say how many bytes of shards this machine keeps, and return where."""
    monkeypatch.chdir(tmp_path)

    def write(num_bytes: int) -> Path:
        Path("params.yaml").write_text(f"shard_cache: {{folder: kept, size: {num_bytes} B}}\n")
        return tmp_path / "kept"

    write(10**9)
    return write


@pytest.fixture
def there(tmp_path: Path, cache_bytes: Callable[[int], Path]) -> Path:
    """In shards of a store."""
    (tmp_path / "store").mkdir()
    write_photos(tmp_path / "there.arrow", made_up_photos(_PHOTOS), "stretch", _shards(f"file://{tmp_path}/store"))
    return tmp_path / "there.arrow"


@pytest.mark.parametrize("where", ["here", "there"])
def test_photos_and_labels_are_those_of_one_file(where: str, file: Path, request: pytest.FixtureRequest) -> None:
    expected, found = PhotoStore(file), PhotoStore(request.getfixturevalue(where))
    assert found.labels.to_pylist() == expected.labels.to_pylist()
    assert found.fit == expected.fit == "stretch"
    assert len(found) == sum(found.shard_lengths()) == _PHOTOS
    assert len(found.shard_lengths()) > 4
    for row in [*range(_PHOTOS), 0]:
        assert bytes(found.encoded(row)) == bytes(expected.encoded(row))


@pytest.mark.parametrize("where", ["here", "there"])
def test_batches_are_those_of_one_file(where: str, file: Path, request: pytest.FixtureRequest) -> None:
    augment = make_augmentation(AugmentationParams(horizontal_flip=True, color_jitter=0.1), seed=0)

    def batches(path: Path, first: int = 0) -> list[bytes]:
        loader = TrainingLoader(PreparedSplit(path, CLASSES, augment), batch_size=8, num_workers=2, seed=0)
        return [
            images.numpy().tobytes() + targets["type"].numpy().tobytes() for images, targets in loader.epoch(3, first)
        ]

    path = request.getfixturevalue(where)
    assert batches(path) == batches(file)
    assert batches(path, first=5) == batches(file)[5:]


def test_the_same_photos_give_the_same_shards_which_any_program_can_read(tmp_path: Path, here: Path) -> None:
    (tmp_path / "again").mkdir()
    write_photos(tmp_path / "again/here.arrow", made_up_photos(_PHOTOS), "stretch", _shards())
    written = {path.name: path.read_bytes() for path in tmp_path.glob("here*")}
    assert written == {path.name: path.read_bytes() for path in (tmp_path / "again").iterdir()}
    store, row = PhotoStore(here), 0
    for path in sorted(tmp_path.glob("here-*.tar")):
        with tarfile.open(path) as archive:
            for entry in archive:
                content = archive.extractfile(entry)
                assert content is not None
                assert content.read() == store.encoded(row)
                row += 1
    assert row == _PHOTOS


def test_shards_are_about_as_large_as_was_asked_for(tmp_path: Path, here: Path) -> None:
    *others, last = [path.stat().st_size for path in sorted(tmp_path.glob("here-*.tar"))]
    assert all(24_000 <= size < 40_000 for size in others)
    assert last < 40_000


def _interrupted() -> Iterator[Photo]:
    yield from made_up_photos(_PHOTOS // 2)
    raise KeyboardInterrupt


def test_what_was_interrupted_is_not_taken_for_whole(here: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        write_photos(here, _interrupted(), shards=_shards())
    with pytest.raises(FileNotFoundError, match="dvc repro prepare"):
        PhotoStore(here)
    write_photos(here, made_up_photos(3), shards=_shards())
    assert len(PhotoStore(here)) == 3
    assert len(list(here.parent.glob("here-*"))) == 1  # nothing of the others is left


def test_half_a_file_is_not_taken_for_whole(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-2000])
    with pytest.raises(ValueError, match=r"file\.arrow is not whole; `dvc repro --force prepare`"):
        PhotoStore(file)


@pytest.mark.parametrize("where", ["here", "there"])
@pytest.mark.parametrize("change", [Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:-1])])
def test_a_shard_that_is_missing_or_cut_short_is_named(
    where: str, change: Callable[[Path], object], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    path = request.getfixturevalue(where)
    shard = sorted(tmp_path.rglob(f"{where}-*.tar"))[1]
    change(shard)
    with pytest.raises(ValueError, match=rf"1 of \d+ shards .* such as {shard.name} .*`dvc repro --force prepare`"):
        PhotoStore(path)


def test_a_shard_with_other_content_is_refused(tmp_path: Path, there: Path) -> None:
    for shard in tmp_path.glob("store/*.tar"):
        content = bytearray(shard.read_bytes())
        content[len(content) // 2] ^= 1
        shard.write_bytes(content)
    with pytest.raises(ValueError, match="is not what was written"):
        PhotoStore(there).image(0)


def test_a_shard_that_goes_missing_is_named(tmp_path: Path, there: Path) -> None:
    store = PhotoStore(there)
    shutil.rmtree(tmp_path / "store")
    with pytest.raises(FileNotFoundError, match=r"store/there-00000-.* is missing; `dvc repro --force prepare`"):
        store.image(0)


def test_a_cache_that_is_smaller_than_a_shard_is_refused(there: Path, cache_bytes: Callable[[int], Path]) -> None:
    cache_bytes(20_000)
    with pytest.raises(ValueError, match=r"shard_cache\.size is .*, and a shard has"):
        PhotoStore(there)


def test_what_is_read_is_fetched_once(tmp_path: Path, there: Path) -> None:
    store = PhotoStore(there)
    expected = [store.encoded(row) for row in range(_PHOTOS)]
    shutil.rmtree(tmp_path / "store")
    assert [store.encoded(row) for row in range(_PHOTOS)] == expected


def test_what_an_interrupted_process_left_is_removed(there: Path, tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/there-00003.partial").write_bytes(b"half")
    PhotoStore(there).image(0)
    assert not list((tmp_path / "kept").glob("*.partial"))
    assert len(list((tmp_path / "kept").glob("*.tar"))) == 1


def _read_at_random(index: Path, expected: list[bytes], seed: int) -> None:
    store = PhotoStore(index)
    for row in np.random.default_rng(seed).integers(0, _PHOTOS, 200).tolist():
        assert store.encoded(row) == expected[row]


def test_processes_share_a_cache_that_never_holds_more(
    file: Path, there: Path, cache_bytes: Callable[[int], Path]
) -> None:
    limit = 90_000  # two or three of the shards
    kept = cache_bytes(limit)
    expected = [bytes(PhotoStore(file).encoded(row)) for row in range(_PHOTOS)]
    spawn = multiprocessing.get_context("spawn")
    readers = [spawn.Process(target=_read_at_random, args=(there, expected, seed)) for seed in range(3)]
    most, done = [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.001):
            most.append(sum(_size(path) for path in kept.glob("*")))

    watcher = threading.Thread(target=watch)
    watcher.start()
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    done.set()
    watcher.join()
    assert [reader.exitcode for reader in readers] == [0, 0, 0]
    assert limit / 2 < max(most) <= limit


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def test_photos_are_shuffled_within_some_shards_at_a_time() -> None:
    lengths = [10, 12, 8, 20, 5]
    shard_of = np.repeat(np.arange(5), lengths)
    batches = EpochBatches(55, 6, seed=0, shards=(lengths, 2))
    order = [draw.photo for batch in batches for draw in batch]
    assert sorted(order) == list(range(55))
    first, second, third = (list(dict.fromkeys(shard_of[order]))[start : start + 2] for start in (0, 2, 4))
    assert sorted([*first, *second, *third]) == list(range(5))
    halfway = sum(lengths[shard] for shard in first)
    assert {shard_of[photo] for photo in order[:halfway]} == set(first)
    assert order[:halfway] != sorted(order[:halfway])
    batches.go_to(2)
    assert [draw.photo for batch in batches for draw in batch] != order
    batches.go_to(1, 4)
    assert [draw.photo for batch in batches for draw in batch] == order[24:]


def test_one_file_is_shuffled_as_one_shard(file: Path) -> None:
    assert PhotoStore(file).shard_lengths() == [_PHOTOS]


def test_shuffling_over_more_than_the_cache_holds_is_said(
    here: Path, there: Path, cache_bytes: Callable[[int], Path]
) -> None:
    cache_bytes(90_000)
    store = PhotoStore(there)
    said = store.fetched_again(None)
    assert said is not None
    assert "set training.shuffle_shards to at most 2" in said or "at most 3" in said
    assert store.fetched_again(2) is None
    assert PhotoStore(here).fetched_again(None) is None


@pytest.mark.parametrize(
    ("size", "url", "message"),
    [
        ("much", None, "'much' is no size"),
        (None, "s3://bucket/shards", "url is given, and size is null; write a size such as 256 MB"),
        ("1 MB", "data/shards", "write an address such as s3://bucket/shards"),
    ],
)
def test_shards_that_cannot_be_are_refused(size: str | None, url: str | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ShardParams(size=size, url=url)


def test_a_missing_folder_of_a_store_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="the bucket, or folder, is not there; make it first"):
        check_store(f"file://{tmp_path}/nowhere")
    check_store(f"file://{tmp_path}")
    assert not list(tmp_path.iterdir())


def test_an_experiment_in_a_copy_shares_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    params = load_section(ShardCacheParams, "shard_cache", Path("params.yaml"))
    assert ShardCache.of_this_machine().folder == tmp_path / params.folder


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3") / "server") as started:
        yield started


@pytest.mark.slow
def test_shards_on_s3_are_those_here(
    server: S3Server, file: Path, cache_bytes: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    use(server, monkeypatch)
    cache_bytes(90_000)
    root = f"s3://{server.bucket}/some shards/"
    write_photos(Path("remote.arrow"), made_up_photos(_PHOTOS), shards=_shards(root))
    assert not list(Path().glob("*.tar"))

    def batches(path: Path) -> list[bytes]:
        loader = TrainingLoader(PreparedSplit(path, CLASSES), batch_size=8, num_workers=2, seed=0)
        return [images.numpy().tobytes() for images, _ in loader.epoch(1)]

    assert batches(Path("remote.arrow")) == batches(file)
    store, folder = fsspec.url_to_fs(root)
    shard = store.ls(folder)[0]
    store.pipe_file(shard, store.cat_file(shard)[:-1])
    with pytest.raises(ValueError, match="missing or cut short"):
        PhotoStore(Path("remote.arrow"))
    store.rm(folder, recursive=True)
    with pytest.raises(ValueError, match="missing or cut short"):
        PhotoStore(Path("remote.arrow"))


@pytest.mark.slow
def test_a_forked_process_leaves_what_its_parent_has_open(
    server: S3Server, cache_bytes: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    use(server, monkeypatch)
    cache_bytes(90_000)
    write_photos(Path("remote.arrow"), made_up_photos(_PHOTOS), shards=_shards(f"s3://{server.bucket}/forked"))
    photos = PhotoStore(Path("remote.arrow"))
    assert failures_in_fork(lambda: [photos.image(row) for row in range(_PHOTOS)]) == []


@pytest.mark.slow
@pytest.mark.parametrize("act", ["write", "read"])
@pytest.mark.parametrize(
    ("name", "value"), [("AWS_SECRET_ACCESS_KEY", "wrong"), ("AWS_ENDPOINT_URL", "http://127.0.0.1:1")]
)
def test_a_store_that_refuses_is_named(
    act: str,
    name: str,
    value: str,
    server: S3Server,
    cache_bytes: Callable[[int], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use(server, monkeypatch)
    index = Path("remote.arrow")
    write = partial(write_photos, index, made_up_photos(9), shards=_shards(f"s3://{server.bucket}/refused"))
    if act == "read":
        check_store(f"s3://{server.bucket}/refused")
        write()
    monkeypatch.setenv(name, value)
    fsspec.filesystem("s3").clear_instance_cache()
    with pytest.raises(ConnectionError, match=rf"the object store does not answer or refuses .*{name}"):
        write() if act == "write" else PhotoStore(index)
    with pytest.raises(ConnectionError, match=name):
        check_store(f"s3://{server.bucket}/refused")
    assert index.is_file() == (act == "read")
