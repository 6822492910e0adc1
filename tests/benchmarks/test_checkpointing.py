from __future__ import annotations

from pathlib import Path

import pytest
import torch

from aerofuse.backbones.families import FAMILIES
from aerofuse.benchmarks import checkpointing
from aerofuse.benchmarks.checkpointing import PROMISED, main, measure
from aerofuse.reporting.benchmark_tables import checkpointing_table, exactness_table, newest_benchmark, planned_table


def test_every_family_has_its_promise() -> None:
    assert list(PROMISED) == list(FAMILIES)


@pytest.mark.slow
def test_a_family_with_batch_normalisation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    main(["mobilenet", "--count-batch", "2", "--time-batch", "1", "--rounds", "1"])
    path = newest_benchmark(Path("reports/benchmarks"))
    assert path is not None
    assert f"torch-{torch.__version__.partition('+')[0]}" in path.name
    assert "| mobilenet |" in checkpointing_table(path).replace("  ", "")
    assert planned_table(path).count("`mobilenetv3_small_100`") == 1
    exact = exactness_table(path)
    ours = exact.splitlines()[-1].split("|")[4:-1]
    # timm's switch updates the statistics twice; ours never.
    assert [int(cell) for cell in ours] == [0, 0, 0]
    assert int(exact.splitlines()[-1].split("|")[3]) > 50


@pytest.mark.large
def test_a_family_without_a_switch_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    # Its middle variant on 16 frames of 112 px would take a minute.
    monkeypatch.setattr(checkpointing, "middle_variant", lambda family: FAMILIES[family].variants[0])
    monkeypatch.setattr(checkpointing, "input_shape", lambda family, batch: (batch, 3, 4, 56, 56))
    rows = measure("swin3d", count_batch=1, time_batch=1, rounds=1, device=torch.device("cpu"))
    by_way = {row.way: row for row in rows}
    assert by_way["unchecked"].peak_ratio == by_way["unchecked"].time_ratio == 1
    assert by_way["recompute_all"].peak_ratio <= by_way["keep_dear"].peak_ratio < 1
    assert by_way["timm's switch"].peak_ratio < 0.5


def test_no_table_where_nothing_was_measured(tmp_path: Path) -> None:
    assert newest_benchmark(tmp_path) is None
