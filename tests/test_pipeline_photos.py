"""The pipeline on photographs: a messy folder with its table, and an archive in the layout of FGVC-Aircraft."""

from __future__ import annotations

import json
import shutil
import unicodedata
from collections.abc import Callable
from functools import partial
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageEnhance, ImageOps

from tests.data.test_photo import bomb, broken_png, deep_planes, floats
from tests.ingest.fgvc_archive import make_fgvc, pack
from tests.ingest.photo_folder import PhotoFolder, draw_folder
from tests.pipeline import clone_on_a_shrunken_recipe, git, ran, run_dvc_warm, tracked_trainings

pytestmark = pytest.mark.slow

Plant = Callable[[PhotoFolder, Image.Image], object]  # writes a photo, and its row of the table


def _turned(folder: PhotoFolder, picture: Image.Image) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.transpose(Image.Transpose.ROTATE_90).save(folder.add("turned.jpg"), exif=exif)


def _deep(folder: PhotoFolder, picture: Image.Image, name: str) -> None:
    pixels = np.asarray(picture).astype(np.uint16) * 257
    assert cv2.imwrite(str(folder.add(name)), pixels[..., ::-1] if pixels.ndim == 3 else pixels)


def _see_through(picture: Image.Image) -> Image.Image:
    clear = picture.convert("RGBA")
    clear.putalpha(Image.new("L", picture.size, 255))
    return clear


def _listed_as(cell: str, folder: PhotoFolder, picture: Image.Image, name: str) -> None:
    """A file whose cell of the table is written in another way."""
    picture.save(folder.add(name))
    folder.table.loc[folder.table.index[-1], "filename"] = cell


def _composed_otherwise(folder: PhotoFolder, picture: Image.Image) -> None:
    name = folder.add("Zürich.jpg")
    picture.save(name.with_name(unicodedata.normalize("NFD", name.name)))


# The same picture in every file, as people have them: to be read as the picture that it is. By name in the result.
READ: dict[str, Plant] = {
    "turned.jpg": _turned,
    "print.jpg": lambda folder, picture: picture.convert("CMYK").save(folder.add("print.jpg")),
    "grey.png": lambda folder, picture: picture.convert("L").save(folder.add("grey.png")),
    "grey.jpg": lambda folder, picture: picture.convert("L").save(folder.add("grey.jpg")),
    "deep-grey.png": lambda folder, picture: _deep(folder, picture.convert("L"), "deep-grey.png"),
    "deep-grey.tif": lambda folder, picture: _deep(folder, picture.convert("L"), "deep-grey.tif"),
    "deep-colour.png": lambda folder, picture: _deep(folder, picture, "deep-colour.png"),
    "deep-colour.tif": lambda folder, picture: _deep(folder, picture, "deep-colour.tif"),
    "clear.png": lambda folder, picture: _see_through(picture).save(folder.add("clear.png")),
    "palette.png": lambda folder, picture: picture.quantize(256).save(folder.add("palette.png")),
    "moving.gif": lambda folder, picture: picture.save(
        folder.add("moving.gif"), save_all=True, append_images=[ImageOps.flip(picture)]
    ),
    "moving.webp": lambda folder, picture: picture.save(
        folder.add("moving.webp"), save_all=True, append_images=[ImageOps.flip(picture)], quality=95
    ),
    "progressive.jpg": lambda folder, picture: picture.save(folder.add("progressive.jpg"), progressive=True),
    "huge.jpg": lambda folder, picture: picture.resize((8704, 6528)).save(folder.add("huge.jpg"), quality=60),
    "plain.bmp": lambda folder, picture: picture.save(folder.add("plain.bmp")),
    "wrong.jpg": lambda folder, picture: picture.save(folder.add("wrong.jpg"), format="PNG"),
    "no-extension": lambda folder, picture: picture.save(folder.add("no-extension"), format="PNG"),
    "LOUD.JPG": lambda folder, picture: picture.save(folder.add("LOUD.JPG")),
    "北京/机场.jpg": lambda folder, picture: picture.save(folder.add("北京/机场.jpg")),
    'a, "b" c.jpg': lambda folder, picture: picture.save(folder.add('a, "b" c.jpg')),
    "blanks.jpg": partial(_listed_as, "  blanks.jpg ", name="blanks.jpg"),
    "deep/down/windows.jpg": partial(_listed_as, "deep\\down\\windows.jpg", name="deep/down/windows.jpg"),
    "dotted.jpg": partial(_listed_as, "./dotted.jpg", name="dotted.jpg"),
    "Zürich.jpg": _composed_otherwise,
}


def _cut(folder: PhotoFolder, picture: Image.Image) -> None:
    buffer = BytesIO()
    picture.save(buffer, "JPEG")
    folder.add("cut.jpg").write_bytes(buffer.getvalue()[:2000])


def _made(make: Callable[[Path], Path], folder: PhotoFolder, picture: Image.Image, name: str) -> None:
    with TemporaryDirectory() as elsewhere:
        shutil.move(make(Path(elsewhere)), folder.add(name))


# Files that no model should see, each with its reason.
LEFT_OUT: dict[str, tuple[Plant, str]] = {
    "empty.jpg": (lambda folder, picture: folder.add("empty.jpg").touch(), "the file is empty"),
    "page.jpg": (lambda folder, picture: folder.add("page.jpg").write_text("<html>"), "not an image"),
    "cut.jpg": (_cut, "damaged or truncated"),
    "damaged.png": (partial(_made, broken_png, name="damaged.png"), "damaged or truncated"),
    "pixel.png": (lambda folder, picture: Image.new("RGB", (1, 1)).save(folder.add("pixel.png")), "1 x 1 pixels: too"),
    "line.png": (lambda folder, picture: Image.new("L", (900, 3)).save(folder.add("line.png")), "900 x 3 pixels: too"),
    "bomb.png": (partial(_made, bomb, name="bomb.png"), "a decompression bomb?"),
    "gone.jpg": (lambda folder, picture: folder.add("gone.jpg"), "no such file"),
    "case.jpg": (lambda folder, picture: picture.save(folder.add("case.jpg").with_name("Case.jpg")), "is Case.jpg"),
    "folder.jpg": (lambda folder, picture: folder.add("folder.jpg").mkdir(), "a folder, and no photo"),
    "planes.tif": (lambda folder, picture: deep_planes(folder.add("planes.tif")), "save it interleaved"),
    "floats.tif": (lambda folder, picture: floats(folder.add("floats.tif")), "save it with 8 or 16 bits"),
    "box.jpg": (
        lambda folder, picture: picture.save(folder.add("box.jpg", xmin=900, ymin=10, xmax=990, ymax=90)),
        "its box begins at 900, 10, outside of",
    ),
}  # fmt: skip

# Copies of another photo under another registration, or none: all on its side of the split.
COPIES: dict[str, Callable[[Image.Image, Path], None]] = {
    "smaller.png": lambda picture, path: picture.resize((85, 64)).save(path),
    "larger.png": lambda picture, path: picture.resize((341, 256)).save(path),
    "recompressed.jpg": lambda picture, path: picture.save(path, quality=30),
    "mirrored.jpg": lambda picture, path: ImageOps.mirror(picture).save(path, quality=80),
    "brighter.jpg": lambda picture, path: ImageEnhance.Brightness(picture).enhance(1.1).save(path),
}
_ORIGINAL = 40  # the row that is copied


def _messy(root: Path) -> PhotoFolder:
    """Photos of three types, some labels missing, files of every kind, copies of others."""
    folder = draw_folder(root, photos=150, side_px=128, types=3)
    table = folder.table
    table.loc[table.index % 5 == 0, "airlinename"] = None
    table.loc[table.index % 7 == 0, "clarity"] = None
    table.loc[table.index % 3 == 0, "block"] = None
    table.loc[table.index % 11 == 10, "registration"] = None
    table["photographer"] = "Zoë 佐伊"
    table[["xmin", "ymin", "xmax", "ymax"]] = None
    picture, original = folder.image(1), folder.image(_ORIGINAL)
    for plant in (*READ.values(), *(plant for plant, _ in LEFT_OUT.values())):
        plant(folder, picture)
    for name, save in COPIES.items():
        save(original, folder.add(name, like=_ORIGINAL, registration=None))
    original.save(folder.root / "unlisted.png")
    # As a spreadsheet writes it: blanks around names, empty rows at the end, line ends of Windows, a byte order mark.
    folder.table.loc[2, "typename"] = f"  {folder.table['typename'][2]} "
    text = folder.table.to_csv(index=False, lineterminator="\r\n") + 3 * ("," * (folder.table.shape[1] - 1) + "\r\n")
    folder.labels.write_text(text, encoding="utf-8-sig", newline="")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> PhotoFolder:
    return _messy(tmp_path_factory.mktemp("table") / "photos")


# The batch of one phase and the budget of all are found by the stages themselves.
AUTO = {
    "training.gradient_checkpointing.policy": "budget",
    "training.gradient_checkpointing.budget": "auto",
    "training.memory_reserve": 0.0,
    "training.largest_batch_size": 40,
    "recipes.quick.train_stage_c.batch_size": "auto",
}


@pytest.fixture(scope="module")
def run_on_table(tmp_path_factory: pytest.TempPathFactory, folder: PhotoFolder) -> tuple[Path, str]:
    """A clone after `dvc repro` on the messy folder with `AUTO`, its results committed, and what DVC printed."""
    data: dict[str, Any] = {
        "source": "table",
        "root": str(folder.root),
        "labels": str(folder.labels),
        "max_bad_fraction": 0.1,
    }
    clone = clone_on_a_shrunken_recipe(tmp_path_factory.mktemp("clone") / "aerofuse", data, changes=AUTO)
    output = run_dvc_warm(clone, "repro").stdout
    git(clone, "add", "--all")
    git(clone, "commit", "--quiet", "--message", "results")
    return clone, output


@pytest.fixture(scope="module")
def on_table(run_on_table: tuple[Path, str]) -> Path:
    clone, _ = run_on_table
    return clone


def _report(clone: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((clone / "reports/data/report.json").read_text())
    return report


def _splits(clone: Path) -> pd.Series:
    """The split of each photo, by file name."""
    from aerofuse.data.store import open_table

    found = {}
    for split in ("train", "validation", "test"):
        for name in open_table(clone / f"data/prepared/{split}.arrow")["filename"].to_pylist():
            found[name] = split
    return pd.Series(found)


def test_a_messy_folder_is_compared(on_table: Path) -> None:
    page = (on_table / "reports/comparison.md").read_text()
    metrics = json.loads((on_table / "metrics/evaluate/hybrid.json").read_text())["hybrid"]
    assert "airline top-1" in page
    assert metrics["airline_labelled"] < metrics["type_labelled"]
    assert metrics["clarity_labelled"] < metrics["type_labelled"]
    assert metrics["block_labelled"] < metrics["clarity_labelled"]


def test_batch_and_budget_on_auto(run_on_table: tuple[Path, str]) -> None:
    clone, output = run_on_table
    stages = [path.stem for path in (clone / "reports/times").glob("train_*.json")]
    memory = {stage: json.loads((clone / f"reports/times/{stage}.json").read_text())["memory"] for stage in stages}
    compared = json.loads((clone / "reports/comparison.json").read_text())["settings"]["batch_size"]
    runs = tracked_trainings(clone)
    assert len(stages) == len(runs) == 5
    assert memory["train_stage_c"]["batch_size"] == compared <= 40
    assert memory["train_stage_b"]["batch_size"] == 32
    assert "confirmed by a real step" in output
    for run in runs:
        record = memory[run.info.run_name]
        assert run.data.metrics["memory/peak_bytes"] == record["peak_bytes"]
        assert run.data.metrics["memory/predicted_peak_bytes"] == record["predicted_peak_bytes"]
        assert run.data.params["memory.batch_size"] == str(record["batch_size"])


def test_there_are_many_kinds_of_fault() -> None:
    assert len(READ) + len(LEFT_OUT) + len(COPIES) >= 30


@pytest.fixture(scope="module")
def prepared(on_table: Path) -> dict[str, Any]:
    """The stored picture of each photo, by file name."""
    from aerofuse.data.jpeg import decode_image
    from aerofuse.data.store import open_table

    found: dict[str, Any] = {}
    for split in ("train", "validation", "test"):
        rows = open_table(on_table / f"data/prepared/{split}.arrow").select(["filename", "image"]).to_pylist()
        found |= {row["filename"]: decode_image(row["image"]).astype(int) for row in rows}
    return found


@pytest.mark.parametrize("name", READ)
def test_a_photo_is_read_right(name: str, prepared: dict[str, Any], folder: PhotoFolder) -> None:
    expected = prepared[folder.table["filename"][1]]
    if "grey" in name:
        expected = (expected @ (0.299, 0.587, 0.114))[..., None]
    assert np.abs(prepared[name][12:84] - expected[12:84]).mean() < 6  # between the bars above and below


@pytest.mark.parametrize("name", LEFT_OUT)
def test_what_is_left_out_has_its_reason(name: str, on_table: Path) -> None:
    _, reason = LEFT_OUT[name]
    assert reason in dict(_report(on_table)["dropped"])[name]
    page = (on_table / "reports/data/report.md").read_text(encoding="utf-8")
    assert any(reason in line for line in page.splitlines() if line.startswith(f"| {name} "))


def test_nothing_else_is_left_out(on_table: Path, folder: PhotoFolder) -> None:
    report = _report(on_table)
    assert {name for name, _ in report["dropped"]} == LEFT_OUT.keys()
    assert len(_splits(on_table)) == len(folder.table) - len(LEFT_OUT)
    assert set(report["unlisted"]) == {"unlisted.png", "Case.jpg"}


REMARKS = {
    "turned as its EXIF data says": 1,
    "CMYK": 1,
    "grey": 2,
    "more than 8 bits a channel": 2,
    "transparent: put on white": 1,
    "animated: the first frame is used": 2,
}


def test_what_was_done_to_photos_is_reported(on_table: Path) -> None:
    assert _report(on_table)["remarks"] == REMARKS


@pytest.mark.parametrize("name", COPIES)
def test_no_copy_is_on_another_side(name: str, on_table: Path, folder: PhotoFolder) -> None:
    splits = _splits(on_table)
    assert splits[name] == splits[folder.table["filename"][_ORIGINAL]]


def test_no_airframe_is_on_two_sides(on_table: Path, folder: PhotoFolder) -> None:
    splits = _splits(on_table)
    registrations = folder.table.set_index("filename")["registration"].reindex(splits.index)
    assert splits.groupby(registrations).nunique().max() == 1
    assert splits.nunique() == 3


@pytest.mark.parametrize("column", ["airlinename", "clarity", "block", "registration"])
def test_what_is_missing_stays_missing(column: str, on_table: Path, folder: PhotoFolder) -> None:
    kept = pd.read_parquet(on_table / "data/prepared/table.parquet").set_index("filename")
    expected = folder.table.set_index("filename").reindex(kept.index).dropna(subset="typename")
    assert (kept.loc[expected.index, column].isna() == expected[column].isna()).all()
    task = {"airlinename": "airline"}.get(column, column)
    if column != "registration":
        splits = _report(on_table)["splits"].values()
        assert sum(split["labelled"][task] for split in splits) == int(kept[column].notna().sum())


def test_blanks_around_names_make_no_class_and_own_columns_are_kept(on_table: Path) -> None:
    kept = pd.read_parquet(on_table / "data/prepared/table.parquet")
    assert kept["typename"].nunique() == 3
    assert set(kept["photographer"]) == {"Zoë 佐伊"}


def test_the_report_shows_its_photos(on_table: Path) -> None:
    page = (on_table / "reports/data/report.md").read_text(encoding="utf-8")
    for name in ("contact_sheet.png", "balance.png", "labels.png"):
        assert f"]({name})" in page
        assert (on_table / "reports/data" / name).stat().st_size > 5000


def test_a_label_that_cannot_be_stops_with_its_row_and_its_remedy(on_table: Path, folder: PhotoFolder) -> None:
    before = folder.labels.read_bytes()
    table = pd.read_csv(folder.labels, encoding="utf-8-sig")
    table.loc[3, "clarity"] = 12.5
    table.to_csv(folder.labels, index=False)
    try:
        done = run_dvc_warm(on_table, "repro", "prepare", check=False)
    finally:
        folder.labels.write_bytes(before)
        run_dvc_warm(on_table, "checkout")
        git(on_table, "checkout", "--", "reports")
    assert done.returncode != 0
    assert "row 5, clarity '12.5': must be from 0 to 1; a percentage must be divided by 100" in done.stdout


def test_another_fusion_method_leaves_the_data_alone(on_table: Path) -> None:
    params = on_table / "params.yaml"
    before = params.read_text(encoding="utf-8")
    params.write_text(before.replace("fusion_method: concat", "fusion_method: attention"), encoding="utf-8")
    changed = json.loads(run_dvc_warm(on_table, "status", "dvc.yaml", "--json").stdout)
    params.write_text(before, encoding="utf-8")
    assert "train_hybrid@stage_a" in changed
    assert "prepare" not in changed


def test_one_changed_label_prepares_and_trains_again(on_table: Path, folder: PhotoFolder, tmp_path: Path) -> None:
    before = folder.labels.read_bytes()
    table = pd.read_csv(folder.labels, encoding="utf-8-sig")
    table.loc[3, "clarity"] = 0.125
    table.to_csv(folder.labels, index=False)
    shards = {path: path.stat().st_mtime_ns for path in (on_table / ".resume/prepare/photos").iterdir()}
    try:
        output = run_dvc_warm(on_table, "repro", "train_baseline@multi_task").stdout
    finally:
        folder.labels.write_bytes(before)
    assert {"prepare", "train_baseline@multi_task"} <= ran(output)
    assert {path: path.stat().st_mtime_ns for path in (on_table / ".resume/prepare/photos").iterdir()} == shards


def test_an_fgvc_archive_is_compared(tmp_path: Path) -> None:
    archive = pack(make_fgvc(tmp_path, photos=96, types=3), tmp_path / "fgvc-aircraft-2013b.tar.gz")
    shutil.rmtree(tmp_path / "fgvc-aircraft-2013b")
    data = {"source": "fgvc", "root": str(archive), "crop": {"to_box": True, "padding": 0.1}}
    clone = clone_on_a_shrunken_recipe(tmp_path / "aerofuse", data)
    run_dvc_warm(clone, "repro")
    metrics = json.loads((clone / "metrics/evaluate/hybrid.json").read_text())["hybrid"]
    assert metrics["type_labelled"] == 24
    assert {name.partition("_")[0] for name in metrics} == {"type"}
    counts = {name: split["photos"] for name, split in _report(clone)["splits"].items()}
    assert counts == {"train": 48, "validation": 24, "test": 24}
    assert "no test image has a label of airline" in (clone / "reports/comparison.md").read_text()
    assert "No test image has a label of airline." in (clone / "reports/index.html").read_text()
    assert "up to date" in run_dvc_warm(clone, "repro").stdout
