from __future__ import annotations

import dataclasses
from pathlib import Path

import pandas as pd
import pytest

from tests.tools.benchmarks.samples import results, row
from tools.benchmarks.results import BenchmarkSettings, Machine, Results, newest_results
from tools.benchmarks.rows import BASELINE, SWITCH


def test_results_are_read_as_they_were_written(tmp_path: Path) -> None:
    written = results()
    path = written.path(tmp_path)
    assert path.name == "checkpointing-Imagined-CPU-2-threads-torch-2.13.0-2026-11-22.csv"
    written.save(path)
    read = Results.load(path)
    pd.testing.assert_frame_equal(read.table, written.table, check_dtype=False)
    assert dataclasses.replace(read, table=written.table) == written
    before = path.read_bytes()
    read.save(path)
    assert path.read_bytes() == before


def test_results_are_joined_only_where_they_were_made_alike() -> None:
    first, second = results(row("vit", BASELINE)), results(row("swin", BASELINE), row("swin", SWITCH))
    nothing = Results(first.machine, first.settings)
    both = nothing.joined(first).joined(second)
    assert both.variants == ["vit_base_patch16_224", "swin_small_patch4_window7_224"]
    assert set(both.curves) == set(both.variants)
    assert len(both.table) == 3
    later = dataclasses.replace(second, machine=dataclasses.replace(second.machine, date="2026-11-23"))
    assert first.joined(later).machine == first.machine
    elsewhere = dataclasses.replace(second, machine=Machine("Another", "2.13.0", "2026-11-22"))
    with pytest.raises(ValueError, match=r"vit_base.* and of swin.*device: Imagined .* and Another.*measure all"):
        first.joined(elsewhere)
    otherwise = dataclasses.replace(second, settings=dataclasses.replace(second.settings, count_batch=32))
    with pytest.raises(ValueError, match="count_batch: 8 and 32"):
        first.joined(otherwise)


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpointing.csv"
    with pytest.raises(FileNotFoundError):
        Results.load(path)
    results().save(path)
    path.with_suffix(".json").write_text('{"machine": {}}')
    with pytest.raises(ValueError, match=r"checkpointing\.csv and its JSON are no results that the benchmark wrote"):
        Results.load(path)
    results().save(path)
    path.write_text("")
    with pytest.raises(ValueError, match="no results that the benchmark wrote"):
        Results.load(path)


def test_the_newest_of_each_device_is_found(tmp_path: Path) -> None:
    assert newest_results(tmp_path) == []
    names = [
        "checkpointing-CPU-2-threads-torch-2.13.0-2026-11-22.csv",
        "checkpointing-CPU-2-threads-torch-2.12.0-2026-11-23.csv",
        "checkpointing-NVIDIA-H200-torch-2.13.0-2026-10-01.csv",
        "monet-NVIDIA-H200-torch-2.13.0-2026-10-01.csv",
        "notes.csv",
    ]
    for name in names:
        (tmp_path / name).touch()
    assert [path.name for path in newest_results(tmp_path)] == names[1:3]
    assert [path.name for path in newest_results(tmp_path, "monet")] == names[3:4]


@pytest.mark.parametrize("name", ["image_size_px", "count_batch", "time_batch", "rounds"])
def test_settings_that_measure_nothing_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is 0; it must be at least"):
        dataclasses.replace(BenchmarkSettings(), **{name: 0})  # type: ignore[arg-type]  # names of numbers
