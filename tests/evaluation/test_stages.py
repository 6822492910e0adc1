"""The stages `evaluate` and `compare` on untrained models: files, agreement between them, repeatability."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch

from aerofuse.data.labels import TASKS, ClassLists
from aerofuse.evaluation.comparison import TRAINING_STAGES
from aerofuse.evaluation.predictions import read_predictions
from aerofuse.models.architecture import baseline_architecture, hybrid_architecture
from aerofuse.models.package import ModelRecord, save_model
from aerofuse.params.loading import PARAMS_FILE
from stages.compare import compare
from stages.evaluate import evaluate

ARCHITECTURES = {
    "single_task": baseline_architecture("convnext_thin", ("type",), 0.1, 0.0, 96),
    "multi_task": baseline_architecture("convnext_thin", TASKS, 0.1, 0.0, 96),
    "hybrid": hybrid_architecture("convnext_thin", "swin_thin", "concat", 0.1, 0.0, 96),
}
REPEATABLE = ("metrics/**/*.json", "reports/predictions/*.parquet", "plots/**/*.*")


def repeatable_files(workspace: Path) -> dict[str, bytes]:
    paths = sorted(path for pattern in REPEATABLE for path in workspace.glob(pattern))
    return {str(path.relative_to(workspace)): path.read_bytes() for path in paths}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory, prepared_folder: Path, classes: ClassLists) -> Path:
    """A repository's root after training, with untrained models, and evaluated and compared once."""
    root = tmp_path_factory.mktemp("workspace")
    shutil.copy(PARAMS_FILE, root / PARAMS_FILE)
    (root / "data").mkdir()
    (root / "data" / "prepared").symlink_to(prepared_folder)
    torch.manual_seed(0)
    for name, architecture in ARCHITECTURES.items():
        save_model(root / "models" / name, architecture.build(classes), ModelRecord(architecture, classes, "", 1, {}))
    (root / "reports" / "times").mkdir(parents=True)
    spent = {"seconds": 9.0, "epochs": 1, "images": 90, "images_per_second": 10.0, "device": "CPU"}
    (root / "plots" / "history").mkdir(parents=True)
    for stage in (stage for stages in TRAINING_STAGES.values() for stage in stages):
        content = json.dumps(spent | {"peak_memory_bytes": None})
        (root / "reports" / "times" / f"{stage}.json").write_text(content)
        (root / "plots" / "history" / f"{stage}.csv").write_text("epoch,train_loss,score\n1,3.0,0.2\n2,2.5,0.3\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        run_both()
    return root


def run_both() -> None:
    for name in ARCHITECTURES:
        evaluate(name)
    compare()


def test_every_output_is_there(workspace: Path) -> None:
    written = repeatable_files(workspace).keys()
    for name in ARCHITECTURES:
        assert f"metrics/evaluate/{name}.json" in written
        assert f"reports/predictions/{name}.parquet" in written
        assert f"plots/evaluate/{name}/predictions.csv" in written
        assert f"plots/evaluate/{name}/confusion.png" in written
        assert (f"plots/evaluate/{name}/regression.png" in written) == (name != "single_task")
    for name in ("reports/comparison.json", "reports/comparison.md", "reports/comparison.png"):
        assert (workspace / name).stat().st_size > 0
    assert "plots/learning_curves.png" in written


def test_metrics_and_predictions_agree(workspace: Path) -> None:
    for name in ARCHITECTURES:
        metrics = json.loads((workspace / f"metrics/evaluate/{name}.json").read_text())[name]
        table = read_predictions(workspace / f"reports/predictions/{name}.parquet")
        plotted = pd.read_csv(workspace / f"plots/evaluate/{name}/predictions.csv")
        assert metrics["type_labelled"] == len(table) == len(plotted)
        assert metrics["type_top1"] == pytest.approx((table["type"] == table["type_predicted"]).mean(), abs=1e-6)
        assert ("clarity_mae_constant" in metrics) == ("clarity_mae" in metrics) == (name != "single_task")


def test_nothing_timed_is_among_the_metrics(workspace: Path) -> None:
    for path in workspace.glob("metrics/**/*.json"):
        text = path.read_text()
        assert not any(word in text for word in ("latency", "seconds", "device", "memory"))


def test_twice_gives_the_same_bytes(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workspace)
    before = repeatable_files(workspace)
    run_both()
    assert repeatable_files(workspace) == before


def test_a_failed_gate_stops_only_when_asked_and_after_writing(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workspace)
    page = workspace / "reports" / "comparison.md"
    page.unlink()
    params = PARAMS_FILE.read_text()
    assert "stop_on_failed_gate: false" in params
    PARAMS_FILE.write_text(params.replace("stop_on_failed_gate: false", "stop_on_failed_gate: true"))
    try:
        with pytest.raises(ValueError, match=r"the hybrid fails .*type top-1.*stop_on_failed_gate is true"):
            compare()
    finally:
        PARAMS_FILE.write_text(params)
    assert "**fail**" in page.read_text()
