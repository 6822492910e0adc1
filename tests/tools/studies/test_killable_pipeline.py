"""What the output of the pipeline tells, and what DVC's own damaged files need."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.pipeline import clone_on_a_shrunken_recipe
from tools.studies.killable_pipeline import REMEDIES, Pipeline, PipelineError, Remedy


@pytest.mark.slow
@pytest.mark.parametrize("remedy", REMEDIES, ids=lambda remedy: remedy.said)
def test_damaged_files_of_dvc_are_mended(remedy: Remedy, tmp_path: Path) -> None:
    root = clone_on_a_shrunken_recipe(tmp_path / "root")
    damaged = root / ("dvc.lock" if "lock'" in remedy.said else ".dvc/tmp/rwlock")
    damaged.parent.mkdir(exist_ok=True)
    damaged.write_bytes(b"")
    pipeline = Pipeline(root, "check_params")
    pipeline.start()
    with pytest.raises(PipelineError, match=re.escape(remedy.said)):
        pipeline.wait(60)
    remedy.mend(root)
    pipeline.start()
    assert pipeline.wait(60)


def test_where_a_pipeline_is_is_read_from_its_output(tmp_path: Path) -> None:
    pipeline = Pipeline(tmp_path / "root")
    (tmp_path / "root.log").write_text(
        "Running stage 'train_hybrid@stage_a':\nstarting in epoch 1 of 2\nepoch 1: a\nepoch 2: b\n"
        "Running stage 'train_hybrid@stage_b':\ngoing on in epoch 2 of 3, after 4 of its 8 updates\nepoch 2: b\n"
    )
    assert pipeline.where() == ("train_hybrid@stage_b", 3.0)
    assert pipeline.went_on_at("train_hybrid@stage_b") == 1.5
    assert pipeline.went_on_at("train_hybrid@stage_a") == 0.0
    assert pipeline.went_on_at("train_hybrid@stage_c") is None
    with (tmp_path / "root.log").open("a") as log:
        log.write("Running stage 'train_hybrid@stage_c':\n")
    assert pipeline.where() == ("train_hybrid@stage_c", None)
    assert pipeline.went_on_at("train_hybrid@stage_c") is None  # it has not begun


def test_products_leave_times_out(tmp_path: Path) -> None:
    for name, latency in (("one", 1.0), ("other", 2.0)):
        folder = tmp_path / name / "metrics"
        folder.mkdir(parents=True)
        (folder / "hybrid.json").write_text(json.dumps({"hybrid": {"type_top1": 0.9, "latency_ms": latency}}))
    assert Pipeline(tmp_path / "one").products() == Pipeline(tmp_path / "other").products()
    (tmp_path / "other/metrics/hybrid.json").write_text(json.dumps({"hybrid": {"type_top1": 0.8, "latency_ms": 1.0}}))
    assert Pipeline(tmp_path / "one").products() != Pipeline(tmp_path / "other").products()
