from __future__ import annotations

import io
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from aerofuse.common.params import load_section
from aerofuse.ingest.fgvc_source import BANNER_PX, extract_archive, list_fgvc
from aerofuse.ingest.file_source import FileSource
from aerofuse.ingest.intake import Intake, IntakeSettings, PhotoFile
from aerofuse.ingest.params import DataParams
from aerofuse.ingest.sources import create_source
from tests.ingest.fgvc_archive import make_fgvc, pack


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_fgvc(tmp_path_factory.mktemp("fgvc"))


@pytest.fixture
def params() -> DataParams:
    return load_section(DataParams, "data")


@pytest.fixture
def root(original: Path, tmp_path: Path) -> Path:
    return shutil.copytree(original, tmp_path / original.name)


def test_the_official_splits_are_kept(root: Path, tmp_path: Path) -> None:
    listing = list_fgvc(root, "variant", tmp_path / "work")
    counts = listing.table["split"].value_counts()
    assert counts.to_dict() == {"train": 20, "validation": 10, "test": 10}
    assert len(listing.types) == 2
    assert listing.airlines == ()
    assert listing.table[["airlinename", "clarity", "block", "registration"]].isna().all(axis=None)


@pytest.mark.parametrize("level", ["variant", "family", "manufacturer"])
def test_every_level_is_read(level: str, root: Path, tmp_path: Path) -> None:
    listing = list_fgvc(root, level, tmp_path / "work")
    lines = (root / "data" / f"images_{level}_test.txt").read_text().splitlines()
    test = listing.table[listing.table["split"] == "test"]
    assert [f"{name[:-4]} {kind}" for name, kind in zip(test["filename"], test["typename"], strict=True)] == lines


def test_lists_may_begin_with_a_byte_order_mark(root: Path, tmp_path: Path) -> None:
    expected = list_fgvc(root, "variant", tmp_path / "work").table
    for path in (root / "data").glob("*.txt"):
        path.write_text(path.read_text(), encoding="utf-8-sig")
    assert list_fgvc(root, "variant", tmp_path / "work").table.equals(expected)


def test_boxes_count_from_zero(root: Path, tmp_path: Path) -> None:
    row = list_fgvc(root, "variant", tmp_path / "work").table.iloc[0]
    assert (row["xmin"], row["ymin"], row["xmax"], row["ymax"]) == (20, 10, 140, 110)


def test_the_banner_is_not_in_the_photos(root: Path, tmp_path: Path) -> None:
    listing = list_fgvc(root, "variant", tmp_path / "work")
    taken = Intake([PhotoFile(listing.table["path"][0])], IntakeSettings(96, BANNER_PX), tmp_path / "photos")
    assert taken.facts["height"].item() == 120
    image = taken.image(0).astype(int)
    assert not ((image[..., 1] > 200) & (image[..., 0] < 60) & (image[..., 2] < 60)).any()


def test_the_archive_itself_is_read_and_unpacked_once(root: Path, tmp_path: Path) -> None:
    archive = pack(root, tmp_path / "fgvc-aircraft-2013b.tar.gz")
    first = list_fgvc(archive, "family", tmp_path / "work")
    marked = tmp_path / "work" / "fgvc-aircraft-2013b" / "data" / "images" / "mark"
    marked.touch()
    second = list_fgvc(archive, "family", tmp_path / "work")
    assert marked.exists()
    assert first.table.drop(columns="path").equals(second.table.drop(columns="path"))
    assert all(path.is_file() for path in first.table["path"])


def test_a_changed_archive_is_unpacked_again(root: Path, tmp_path: Path) -> None:
    archive = pack(root, tmp_path / "fgvc.tar.gz")
    list_fgvc(archive, "family", tmp_path / "work")
    mark = tmp_path / "work" / "mark"
    mark.touch()
    (root / "new").touch()
    list_fgvc(pack(root, archive), "family", tmp_path / "work")
    assert not mark.exists()


def _drop_list(root: Path) -> None:
    (root / "data" / "images_variant_val.txt").unlink()


def _drop_images(root: Path) -> None:
    shutil.rmtree(root / "data" / "images")


def _twice(root: Path) -> None:
    train = (root / "data" / "images_variant_train.txt").read_text().splitlines()
    with (root / "data" / "images_variant_test.txt").open("a") as file:
        file.write(f"{train[0]}\n")


def _new_class(root: Path) -> None:
    path = root / "data" / "images_variant_val.txt"
    path.write_text(path.read_text() + "9999999 Concorde\n")


def _no_class(root: Path) -> None:
    path = root / "data" / "images_variant_val.txt"
    path.write_text(path.read_text() + "9999999\n")


def _bad_box(root: Path) -> None:
    path = root / "data" / "images_box.txt"
    path.write_text("0000000 1 2 3\n")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_drop_list, "has no images_variant_val.txt; is the archive complete?"),
        (_drop_images, "has no folder `images` beside lists"),
        (_twice, r"images_variant_train\.txt, line 1, images_variant_test\.txt, line 11: .*0000000\.jpg"),
        (_no_class, "line 11: '9999999' is not a photo and its class"),
        (_bad_box, "line 1: '0000000 1 2 3' is not a photo and four pixels"),
    ],
)
def test_what_does_not_fit_is_named(damage: Callable[[Path], None], message: str, root: Path, tmp_path: Path) -> None:
    damage(root)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        list_fgvc(root, "variant", tmp_path / "work")


def test_a_class_without_a_training_photo_is_refused_before_photos_are_read(
    root: Path, tmp_path: Path, params: DataParams
) -> None:
    _new_class(root)
    message = (
        r"train has no photo of Concorde \(1 in validation, such as images_variant_val\.txt, line 11\), so that no"
    )
    with pytest.raises(ValueError, match=message):
        create_source(params.model_copy(update={"source": "fgvc", "root": str(root)}), 32, tmp_path / "work")
    assert not (tmp_path / "work" / "photos").exists()


def _source(root: Path, work: Path) -> FileSource:
    listing = list_fgvc(root, "variant", work)
    return FileSource(listing, IntakeSettings(32), work / "photos", max_bad_fraction=0.5, duplicate_bits=32)


def test_a_class_whose_training_photos_are_all_bad_is_refused(root: Path, tmp_path: Path) -> None:
    listing = list_fgvc(root, "variant", tmp_path / "work")
    gone = listing.table[(listing.table["split"] == "train") & (listing.table["typename"] == listing.types[0])]
    for path in gone["path"][1:]:
        path.write_bytes(b"")
    assert len(_source(root, tmp_path / "work").index()) == 40 - len(gone) + 1
    gone["path"].iloc[0].write_bytes(b"")
    with pytest.raises(ValueError, match=rf"no photo of {listing.types[0]} \(10 in test, validation, such as images"):
        _source(root, tmp_path / "work")


def test_too_many_bad_photos_are_named_with_their_lines(root: Path, tmp_path: Path) -> None:
    listing = list_fgvc(root, "variant", tmp_path / "work")
    for path in listing.table["path"]:
        path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"images_variant_train\.txt, line 1, 0000000\.jpg: the file is empty"):
        _source(root, tmp_path / "work")


def test_no_such_archive(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"data.root is '.*none': no such folder or archive"):
        list_fgvc(tmp_path / "none", "variant", tmp_path / "work")


def test_photos_that_are_listed_and_missing_are_bad_photos(root: Path, tmp_path: Path) -> None:
    listing = list_fgvc(root, "variant", tmp_path / "work")
    listing.table["path"][0].unlink()
    files = [PhotoFile(path) for path in listing.table["path"][:2]]
    problems = Intake(files, IntakeSettings(32), tmp_path / "photos").facts["problem"]
    assert problems.tolist()[0] == "no such file"
    assert np.isnan(problems[1]) if problems[1] is not None else True


def _tar(path: Path, add: Callable[[tarfile.TarFile], None]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        add(tar)
    return path


def _file(name: str) -> Callable[[tarfile.TarFile], None]:
    def add(tar: tarfile.TarFile) -> None:
        info = tarfile.TarInfo(name)
        info.size = 3
        tar.addfile(info, io.BytesIO(b"abc"))

    return add


def _link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> Callable[[tarfile.TarFile], None]:
    def add(tar: tarfile.TarFile) -> None:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, target
        tar.addfile(info)

    return add


def test_files_are_unpacked(tmp_path: Path) -> None:
    folder = extract_archive(_tar(tmp_path / "a.tar.gz", _file("data/x.txt")), tmp_path / "out")
    assert (folder / "data" / "x.txt").read_bytes() == b"abc"


@pytest.mark.parametrize(
    "add",
    [
        _file("../outside.txt"),
        _file("data/../../outside.txt"),
        _link("data", ".."),
        _link("data", "/etc"),
        _link("data", "../outside", tarfile.LNKTYPE),
        _link("data/device", "", tarfile.CHRTYPE),
    ],
    ids=["parent", "hidden parent", "link to the parent", "absolute link", "hard link", "device"],
)
def test_nothing_leaves_the_folder(add: Callable[[tarfile.TarFile], None], tmp_path: Path) -> None:
    archive = _tar(tmp_path / "a.tar.gz", add)
    with pytest.raises(ValueError, match="is not safe to unpack"):
        extract_archive(archive, tmp_path / "work" / "out")
    assert not (tmp_path / "work" / "out").exists()
    assert not (tmp_path / "work" / "outside.txt").exists()
    assert not (tmp_path / "outside.txt").exists()


def test_an_absolute_path_stays_inside(tmp_path: Path) -> None:
    folder = extract_archive(_tar(tmp_path / "a.tar.gz", _file("/outside-of-everything.txt")), tmp_path / "out")
    assert (folder / "outside-of-everything.txt").is_file()
    assert not Path("/outside-of-everything.txt").exists()


@pytest.mark.parametrize("content", [b"", b"<html>no</html>", None], ids=["empty", "a page", "cut off"])
def test_a_damaged_archive_is_named(content: bytes | None, tmp_path: Path) -> None:
    archive = _tar(tmp_path / "a.tar.gz", _file("x.txt"))
    archive.write_bytes(archive.read_bytes()[:60] if content is None else content)
    with pytest.raises(ValueError, match=r"(?s)a\.tar\.gz cannot be unpacked: .*; download it again"):
        extract_archive(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()
