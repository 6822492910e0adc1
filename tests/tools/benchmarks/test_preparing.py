from __future__ import annotations

from pathlib import Path

import pandas as pd
import psutil
import pytest
from PIL import Image, UnidentifiedImageError

from tests.imports import ROOT
from tools.benchmarks.preparing import make_photos, measure, run_prepare


def test_photos_differ_and_some_are_faulty(tmp_path: Path) -> None:
    labels = make_photos(tmp_path / "photos", 1001)
    table = pd.read_csv(labels)
    assert len(table) == table["filename"].nunique() == 1001
    assert table["airlinename"].isna().any()
    assert table["clarity"].isna().any()
    assert Image.open(tmp_path / "photos" / table["filename"][1]).size == (200, 150)
    assert Image.open(tmp_path / "photos" / table["filename"][53]).size == (160, 120)
    with pytest.raises((OSError, UnidentifiedImageError)):
        Image.open(tmp_path / "photos" / table["filename"][999]).load()


@pytest.mark.slow
def test_prepare_goes_on_after_it_was_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight files of photos: half of them are left when it should be killed, and a busy machine is late with that."""
    monkeypatch.chdir(ROOT)
    killed, resumed, relabelled = measure(tmp_path, 1200, 48)
    assert killed.killed
    assert not resumed.killed
    assert 600 <= killed.photos_read < 1200
    assert killed.photos_read + resumed.photos_read == 1200
    assert resumed.photos_read_again == 0
    assert relabelled.photos_read == 0
    for run in (killed, resumed, relabelled):
        assert 0 < run.peak_bytes_of_parent <= run.peak_bytes < 2 * psutil.virtual_memory().total
    assert killed.peak_bytes > killed.peak_bytes_of_parent
    assert (tmp_path / "workspace/reports/data/report.md").is_file()
    assert not list((tmp_path / "workspace/.resume").rglob("*.partial"))


@pytest.mark.slow
def test_a_stage_that_fails_is_no_measurement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(RuntimeError, match="prepare ended with 1"):
        run_prepare(tmp_path, "without params.yaml")
