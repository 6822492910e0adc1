from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from aerofuse.common.files import read_json, write_json
from aerofuse.common.markdown import markdown_table
from aerofuse.comparison.comparison import Settings, compare_models
from aerofuse.plotting.wording import write_duration, write_p_value, write_threshold, write_value
from aerofuse.report.tables import comparison_page
from tests.metrics import samples

SETTINGS = Settings(confidence_level=0.95, resamples=500, recipe="quick", batch_size=32)


def cells(page: str, first: str) -> list[str]:
    """The cells of the first row of a page that begins with `first`."""
    line = next(line for line in page.splitlines() if line.startswith(f"| {first} "))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_markdown() -> None:
    table = markdown_table(["name", "n"], [["a|b", "1"], ["c", "234"]], "lr")
    assert table == "| name   |   n |\n|:-------|----:|\n| a\\|b   |   1 |\n| c      | 234 |"
    with pytest.raises(ValueError, match="1 cells under 2 headings"):
        markdown_table(["name", "n"], [["a"]], "lr")
    with pytest.raises(ValueError, match="align is 'lx'"):
        markdown_table(["name", "n"], [], "lx")


def test_the_page_has_the_constant_predictor_beside_every_mae() -> None:
    page = comparison_page(compare_models(samples.results(), SETTINGS))
    for task, constant in (("clarity", "0.2500"), ("block", "0.2400")):
        row = cells(page, f"{task} MAE")
        assert row[1] == "-"
        assert row[3].startswith("0.0500 [0.0500, 0.0500]")
        assert row[4] == constant


def test_every_metric_has_the_number_of_labelled_images_beside_it() -> None:
    """Every tenth photo of the samples has no airline."""
    page = comparison_page(compare_models(samples.results(), SETTINGS))
    labelled = {"type top-1": "120", "type macro-F1": "120", "airline top-1": "108", "clarity MAE": "120"}
    for metric, images in labelled.items():
        assert cells(page, metric)[-1] == images
    assert "108 test images" in page
    assert cells(page, "training time")[-1] == ""


def test_the_page_shows_gates_as_they_are() -> None:
    page = comparison_page(compare_models(samples.results(hybrid_wrong=13), SETTINGS))
    gain = cells(page, "type top-1 over multi-task")
    assert gain[1:4] == ["-0.83 points", ">= 1 point", "**fail**"]
    assert cells(page, "peak training memory, batch 16, base")[3] == "not measurable here"
    assert "Of the hybrid's 10 gates, 8 pass, 1 fail, and 1 are not measurable here." in page
    assert "120 test images" in page
    assert (
        "trains on 3.0 times as many images per second as phase C (everything); the aim of at least 15 is not" in page
    )


def test_values_as_they_are_written() -> None:
    assert write_value(0.87334, "%") == "87.33 %"
    assert write_value(0.012, "points", signed=True) == "+1.20 points"
    assert write_value(16.24e9, "GB") == "16.2 GB"
    assert write_value(None, "ms") == "-"
    assert [write_threshold(*pair) for pair in ((0.01, "points"), (0.8, "%"), (20e9, "GB"), (0.15, ""))] == [
        "1 point",
        "80 %",
        "20 GB",
        "0.15",
    ]
    assert [write_duration(s) for s in (59.4, 59.6, 725, 3599.9, 12_000)] == [
        "59 s",
        "1 min 00 s",
        "12 min 05 s",
        "1 h 00 min",
        "3 h 20 min",
    ]
    assert [write_p_value(p) for p in (0.00009, 0.0654)] == ["< 0.0001", "0.0654"]


def test_json_is_short_ordered_and_the_same_each_time(tmp_path: Path) -> None:
    content = {"b": {"share": 0.123456789, "p": 1.23456789e-9, "n": 1_800_000_007, "float32": np.float32(0.1)}, "a": []}
    write_json(tmp_path / "folder" / "first.json", content)
    write_json(tmp_path / "second.json", content)
    text = (tmp_path / "second.json").read_text()
    assert text == (tmp_path / "folder" / "first.json").read_text()
    assert text.startswith('{\n  "b": {\n    "share": 0.123457,\n    "p": 1.23457e-09,\n    "n": 1800000007,')
    assert '"float32": 0.1' in text
    assert text.endswith("}\n")
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "bad.json", {"value": math.nan})


def test_reading_json_that_is_not_there_or_broken(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="dvc repro"):
        read_json(tmp_path / "none.json")
    (tmp_path / "half.json").write_text('{"a": ')
    with pytest.raises(ValueError, match=r"half\.json is not JSON"):
        read_json(tmp_path / "half.json")
