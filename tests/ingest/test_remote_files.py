"""Photos in an object store: fsspec's store in memory, and S3 on a real server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from aerofuse.common.params import load_section
from aerofuse.data.image_file import UnreadablePhotoError
from aerofuse.ingest.params import DataParams
from aerofuse.ingest.remote import RemoteFile, find_remote_photos
from tests.ingest.photo_folder import PhotoFolder, draw_folder
from tests.ingest.remote_photos import failures_in_fork, prepare_from, put, use
from tests.s3_server import S3Server, s3_server


@pytest.fixture
def folder(tmp_path: Path) -> PhotoFolder:
    """Photos in two folders, one of them listed and missing, one empty, one not listed."""
    folder = draw_folder(tmp_path / "photos", photos=24)
    (folder.root / "北京").mkdir()
    for row in range(12):
        name = folder.table["filename"][row]
        (folder.root / name).rename(folder.root / "北京" / name)
        folder.table.loc[row, "filename"] = f"北京/{name}"
    folder.add("missing.jpg")
    folder.add("empty.jpg").touch()
    folder.write()
    folder.image(13).save(folder.root / "unlisted.png")
    return folder


@pytest.fixture
def memory(folder: PhotoFolder) -> str:
    return put(folder, f"memory://{uuid4()}/photos")


def test_photos_in_a_store_give_the_bytes_of_a_folder(
    folder: PhotoFolder, memory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0})  # the store is in this process
    assert prepare_from(memory, folder, tmp_path / "store") == prepare_from(
        str(folder.root), folder, tmp_path / "folder"
    )


def test_a_changed_photo_has_another_version(folder: PhotoFolder, memory: str) -> None:
    before = find_remote_photos(memory)
    folder.image(20).rotate(180).save(folder.root / folder.table["filename"][20])
    put(folder, memory)
    after = find_remote_photos(memory)
    assert before.keys() == after.keys()
    assert before[folder.table["filename"][20]] != after[folder.table["filename"][20]]
    assert "labels.csv" not in after


def test_a_file_that_is_missing_has_a_reason(memory: str) -> None:
    with pytest.raises(UnreadablePhotoError, match="no such file"):
        RemoteFile(f"{memory}/none.jpg").read()
    with pytest.raises(UnreadablePhotoError, match="no such file"):
        RemoteFile(f"{memory}/gone.jpg", ("1", "x")).read()


@pytest.mark.parametrize("root", ["memory://none/here", "nonsense://bucket/photos"])
def test_an_address_without_photos_is_refused(root: str, folder: PhotoFolder, tmp_path: Path) -> None:
    with pytest.raises((FileNotFoundError, ConnectionError), match=root):
        prepare_from(root, folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": "table", "labels": "s3://bucket/labels.csv"}, "data.labels is .*; copy it here"),
        ({"source": "fgvc", "root": "s3://bucket/fgvc.tar.gz"}, "data.root is .*; copy it here"),
        ({"source": "synthetic", "engine": "ray"}, "data.engine is ray, which reads photos in files"),
    ],
)
def test_what_no_store_or_cluster_is_asked_for_is_refused(changes: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DataParams.model_validate(load_section(DataParams, "data").model_dump() | changes)


def test_only_what_is_here_is_linked_for_dvc() -> None:
    data = load_section(DataParams, "data").model_dump()
    roots = {"train": "s3://bucket/train", "test": "photos/test"}
    params = DataParams.model_validate(data | {"source": "table", "root": roots, "labels": "labels.csv"})
    assert params.inputs == {"root.test": Path("photos/test"), "labels": Path("labels.csv")}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3") / "server") as started:
        yield started


@pytest.mark.slow
def test_photos_on_s3_give_the_bytes_of_a_folder(
    server: S3Server, folder: PhotoFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(server, monkeypatch)
    monkeypatch.setattr("aerofuse.ingest.intake._SHARD_FILES", 4)  # so that several processes read
    root = put(folder, f"s3://{server.bucket}/my photos")
    assert prepare_from(root, folder, tmp_path / "store") == prepare_from(str(folder.root), folder, tmp_path / "folder")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("AWS_SECRET_ACCESS_KEY", "wrong", "refuses .*AWS_SECRET_ACCESS_KEY"),
        ("AWS_ACCESS_KEY_ID", "nobody", "refuses .*AWS_ACCESS_KEY_ID"),
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:1", "does not answer"),  # a port that nobody listens on
    ],
)
def test_a_store_that_refuses_is_named_before_anything_is_written(
    name: str,
    value: str,
    message: str,
    server: S3Server,
    folder: PhotoFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use(server, monkeypatch)
    monkeypatch.setenv(name, value)
    with pytest.raises(ConnectionError, match=message) as caught:
        prepare_from(f"s3://{server.bucket}/photos", folder, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_forked_process_leaves_what_its_parent_has_open(
    server: S3Server, folder: PhotoFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(server, monkeypatch)
    found = find_remote_photos(put(folder, f"s3://{server.bucket}/forked"))
    assert failures_in_fork(found["unlisted.png"].read) == []
