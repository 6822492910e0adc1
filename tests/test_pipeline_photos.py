"""The pipeline on photographs: a messy folder with its table, and an archive in the layout of FGVC-Aircraft."""

from __future__ import annotations

import json
import shutil
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageOps

from tests.data.fgvc_archive import make_fgvc, pack
from tests.data.photo_folder import PhotoFolder, draw_folder
from tests.pipeline import clone_on_a_shrunken_recipe, git, ran, run_dvc

pytestmark = pytest.mark.large

BAD = {
    "empty.jpg": "the file is empty",
    "page.jpg": "not an image",
    "cut.jpg": "damaged or truncated",
    "pixel.png": "too small",
    "gone.jpg": "no such file",
}
COPIES = ("smaller.png", "recompressed.jpg", "mirrored.jpg")


def _messy(root: Path) -> PhotoFolder:
    """Photos of three types, some labels missing, photos of every kind, bad files, copies of others."""
    folder = draw_folder(root, photos=150, side_px=128, types=3)
    table = folder.table
    table.loc[table.index % 5 == 0, "airlinename"] = None
    table.loc[table.index % 7 == 0, "clarity"] = None
    table.loc[table.index % 3 == 0, "block"] = None
    table["photographer"] = "Zoë 佐伊"
    picture = folder.picture(0)
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.transpose(Image.Transpose.ROTATE_90).save(folder.add("turned.jpg"), exif=exif)
    picture.convert("CMYK").save(folder.add("print.jpg"))
    picture.convert("L").save(folder.add("grey.png"))
    Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257).save(folder.add("deep.png"))
    picture.convert("RGBA").save(folder.add("clear.png"))
    picture.save(folder.add("moving.gif"), save_all=True, append_images=[picture])
    picture.save(folder.add("wrong.jpg"), format="PNG")
    picture.save(folder.add("北京/机场.jpg", typename=table["typename"][0]))
    folder.add("empty.jpg").touch()
    folder.add("page.jpg").write_text("<html>")
    buffer = BytesIO()
    picture.save(buffer, "JPEG")
    folder.add("cut.jpg").write_bytes(buffer.getvalue()[:2000])
    Image.new("RGB", (1, 1)).save(folder.add("pixel.png"))
    folder.add("gone.jpg")
    original = folder.picture(40)
    original.resize((85, 64)).save(folder.add("smaller.png", like=40, registration=None))
    original.save(folder.add("recompressed.jpg", like=40, registration=None), quality=30)
    ImageOps.mirror(original).save(folder.add("mirrored.jpg", like=40, registration=None), quality=80)
    original.save(folder.root / "unlisted.png")
    folder.table.to_csv(folder.labels, index=False, encoding="utf-8-sig")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> PhotoFolder:
    return _messy(tmp_path_factory.mktemp("table") / "photos")


@pytest.fixture(scope="module")
def on_table(tmp_path_factory: pytest.TempPathFactory, folder: PhotoFolder) -> Path:
    """A clone after `dvc repro` on the messy folder, its results committed."""
    data: dict[str, Any] = {
        "source": "table",
        "root": str(folder.root),
        "labels": str(folder.labels),
        "max_bad_fraction": 0.05,
    }
    clone = clone_on_a_shrunken_recipe(tmp_path_factory.mktemp("clone") / "aerofuse", data)
    run_dvc(clone, "repro")
    git(clone, "add", "--all")
    git(clone, "commit", "--quiet", "--message", "results")
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


def test_what_was_left_out_is_reported(on_table: Path) -> None:
    report = _report(on_table)
    dropped = dict(report["dropped"])
    assert dropped.keys() == BAD.keys()
    for name, reason in BAD.items():
        assert reason in dropped[name]
        assert name in (on_table / "reports/data/report.md").read_text()
    assert report["unlisted"] == ["unlisted.png"]
    assert report["remarks"]["turned as its EXIF data says"] == 1


def test_no_picture_and_no_airframe_is_on_two_sides(on_table: Path, folder: PhotoFolder) -> None:
    splits = _splits(on_table)
    original = folder.table["filename"][40]
    assert len({splits[name] for name in (original, *COPIES)}) == 1
    registrations = folder.table.set_index("filename")["registration"].reindex(splits.index)
    assert splits.groupby(registrations).nunique().max() == 1
    assert splits.nunique() == 3


def test_another_fusion_method_leaves_the_data_alone(on_table: Path) -> None:
    params = on_table / "params.yaml"
    before = params.read_text(encoding="utf-8")
    params.write_text(before.replace("fusion_method: concat", "fusion_method: attention"), encoding="utf-8")
    changed = json.loads(run_dvc(on_table, "status", "dvc.yaml", "--json").stdout)
    params.write_text(before, encoding="utf-8")
    assert "train_stage_a" in changed
    assert "prepare" not in changed


def test_one_changed_label_prepares_and_trains_again(on_table: Path, folder: PhotoFolder, tmp_path: Path) -> None:
    before = folder.labels.read_bytes()
    table = pd.read_csv(folder.labels, encoding="utf-8-sig")
    table.loc[3, "clarity"] = 0.125
    table.to_csv(folder.labels, index=False)
    shards = {path: path.stat().st_mtime_ns for path in (on_table / ".resume/prepare/photos").iterdir()}
    try:
        output = run_dvc(on_table, "repro", "train_multi_task").stdout
    finally:
        folder.labels.write_bytes(before)
    assert {"prepare", "train_multi_task"} <= ran(output)
    assert {path: path.stat().st_mtime_ns for path in (on_table / ".resume/prepare/photos").iterdir()} == shards


def test_an_fgvc_archive_is_compared(tmp_path: Path) -> None:
    archive = pack(make_fgvc(tmp_path, photos=96, types=3), tmp_path / "fgvc-aircraft-2013b.tar.gz")
    shutil.rmtree(tmp_path / "fgvc-aircraft-2013b")
    data = {"source": "fgvc", "root": str(archive), "crop": {"to_box": True, "padding": 0.1}}
    clone = clone_on_a_shrunken_recipe(tmp_path / "aerofuse", data)
    run_dvc(clone, "repro")
    metrics = json.loads((clone / "metrics/evaluate/hybrid.json").read_text())["hybrid"]
    assert metrics["type_labelled"] == 24
    assert {name.partition("_")[0] for name in metrics} == {"type"}
    counts = {name: split["photos"] for name, split in _report(clone)["splits"].items()}
    assert counts == {"train": 48, "validation": 24, "test": 24}
    assert "no test image has a label of airline" in (clone / "reports/comparison.md").read_text()
    assert "up to date" in run_dvc(clone, "repro").stdout
