"""The stages `evaluate`, `explain` and `compare` on untrained models: files, agreement, repeatability."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import torch

from aerofuse.common.params import PARAMS_FILE
from aerofuse.comparison.comparison import TRAINING_STAGES
from aerofuse.data.labels import TASKS, ClassLists
from aerofuse.ingest.data_report import write_data_report
from aerofuse.ingest.sources import SyntheticSource
from aerofuse.ingest.summary import summarise
from aerofuse.metrics.predictions import read_predictions
from aerofuse.models.architecture import hybrid_architecture
from aerofuse.models.files import ModelRecord, save_model
from aerofuse.synthetic.params import SyntheticParams
from stages.compare import compare
from stages.evaluate import evaluate
from stages.explain import explain_mistakes
from tests.browser import open_page
from tests.models.architectures import baseline_architecture
from tests.report.page_sources import EXPORT

pytestmark = pytest.mark.slow

ARCHITECTURES = {
    "single_task": baseline_architecture("convnext_thin", ("type",), 0.1, 0.0, 96),
    "multi_task": baseline_architecture("convnext_thin", TASKS, 0.1, 0.0, 96),
    "hybrid": hybrid_architecture("convnext_thin", "swin_thin", "concat", 0.1, 0.0, 96),
}
REPEATABLE = ("metrics/**/*.json", "reports/predictions/*.parquet", "reports/mistakes/*", "plots/**/*.*")


def repeatable_files(workspace: Path) -> dict[str, bytes]:
    paths = sorted(path for pattern in REPEATABLE for path in workspace.glob(pattern))
    return {str(path.relative_to(workspace)): path.read_bytes() for path in paths}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory, prepared_folder: Path, classes: ClassLists) -> Path:
    """A repository's root after training, with untrained models, and evaluated and compared once."""
    root = tmp_path_factory.mktemp("workspace")
    # What MLflow gets of a comparison is seen in tests/test_pipeline.py.
    params = PARAMS_FILE.read_text(encoding="utf-8")
    (root / PARAMS_FILE).write_text(params.replace("tracking:\n  enabled: true", "tracking:\n  enabled: false"))
    (root / "data").mkdir()
    (root / "data" / "prepared").symlink_to(prepared_folder)
    index = pd.DataFrame({"filename": ["a.jpg"], "typename": ["a"], "source_type": ["a"], "split": ["train"]})
    summary = summarise(index, SyntheticSource(SyntheticParams(num_images=40), seed=0), prepared_folder)
    write_data_report(summary, prepared_folder, root / "reports" / "data")
    torch.manual_seed(0)
    for name, architecture in ARCHITECTURES.items():
        save_model(
            root / "models" / name,
            architecture.build(classes).state_dict(),
            ModelRecord(architecture, classes, "", 1, {}, {"type": 2.0, "airline": 0.5}),
        )
    (root / "reports" / "times").mkdir()
    (root / "reports" / "export.json").write_text(json.dumps(EXPORT))
    spent = {
        "seconds": 9.0,
        "epochs": 1,
        "views": 1,
        "images": 90,
        "images_per_second": 10.0,
        "device": "CPU",
        "busy_elsewhere": 0.0,
    }
    spent |= {"seconds_seeing_photos": 0.0, "seconds_saving_state": 0.1, "resumed": 0}
    (root / "plots" / "history").mkdir(parents=True)
    for stage in (stage for stages in TRAINING_STAGES.values() for stage in stages):
        content = json.dumps(spent | {"peak_memory_bytes": None})
        (root / "reports" / "times" / f"{stage}.json").write_text(content)
        (root / "plots" / "history" / f"{stage}.csv").write_text("epoch,train_loss,score\n1,3.0,0.2\n2,2.5,0.3\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        run_all()
    return root


def run_all() -> None:
    for name in ARCHITECTURES:
        evaluate(name)
    explain_mistakes()
    compare()


def test_every_output_is_there(workspace: Path) -> None:
    written = repeatable_files(workspace).keys()
    for name in ARCHITECTURES:
        assert f"metrics/evaluate/{name}.json" in written
        assert f"reports/predictions/{name}.parquet" in written
        assert f"plots/evaluate/{name}/predictions.csv" in written
        assert f"plots/evaluate/{name}/confusion.png" in written
        assert f"plots/evaluate/{name}/reliability.png" in written
        assert (f"plots/evaluate/{name}/regression.png" in written) == (name != "single_task")
    for name in ("reports/comparison.json", "reports/comparison.md", "reports/comparison.png"):
        assert (workspace / name).stat().st_size > 0
    assert "plots/learning_curves.png" in written
    mistakes = json.loads((workspace / "reports/mistakes/mistakes.json").read_text())["mistakes"]
    for task in ("type", "clarity", "block"):
        assert len(mistakes[task]) == 12
        for mistake in mistakes[task]:
            for picture in mistake["pictures"].values():
                assert f"reports/mistakes/{picture}" in written
    assert sum(path.stat().st_size for path in workspace.glob("reports/mistakes/*")) < 1_000_000


def test_the_shown_mistakes_are_the_worst(workspace: Path) -> None:
    table = read_predictions(workspace / "reports/predictions/hybrid.parquet").set_index("filename")
    mistakes = json.loads((workspace / "reports/mistakes/mistakes.json").read_text())["mistakes"]
    wrong = table[table["type"] != table["type_predicted"]]
    assert mistakes["type"][0]["confidence"] == pytest.approx(wrong["type_confidence"].max(), rel=1e-5)
    for mistake in mistakes["type"]:
        assert wrong.loc[mistake["filename"], ["type", "type_predicted"]].tolist() == [
            mistake["true"],
            mistake["predicted"],
        ]
    largest = (table["block"] - table["block_predicted"]).abs().max()
    assert abs(mistakes["block"][0]["true"] - mistakes["block"][0]["predicted"]) == pytest.approx(largest, rel=1e-4)


def test_the_report_opens(workspace: Path, tmp_path: Path) -> None:
    opened = open_page(workspace / "reports" / "index.html", tmp_path / "profile")
    assert opened.console == []
    assert 'data-charts="drawn"' in opened.dom
    assert "recipe: quick" in opened.dom
    assert "learning_rate: 0.003" in opened.dom
    assert "convnext_base" not in opened.dom, "of the recipes only the active one"


def test_the_report_is_the_same_twice(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workspace)
    page = workspace / "reports" / "index.html"
    before = page.read_bytes()
    compare()
    assert page.read_bytes() == before


def test_metrics_and_predictions_agree(workspace: Path) -> None:
    for name in ARCHITECTURES:
        metrics = json.loads((workspace / f"metrics/evaluate/{name}.json").read_text())[name]
        table = read_predictions(workspace / f"reports/predictions/{name}.parquet")
        plotted = pd.read_csv(workspace / f"plots/evaluate/{name}/predictions.csv")
        assert metrics["type_labelled"] == len(table) == len(plotted)
        assert metrics["type_top1"] == pytest.approx((table["type"] == table["type_predicted"]).mean(), abs=1e-6)
        tasks = {"type"} if name == "single_task" else {"type", "airline"}
        assert {metric for metric in metrics if "_ece" in metric} == {
            f"{task}_ece{suffix}" for task in tasks for suffix in ("", "_uncalibrated")
        }
        # What the temperature does: 2 makes it less sure, 0.5 surer.
        assert (table["type_confidence"] < table["type_confidence_uncalibrated"]).all()
        if name != "single_task":
            assert (table["airline_confidence"] > table["airline_confidence_uncalibrated"]).all()
        assert ("clarity_mae_constant" in metrics) == ("clarity_mae" in metrics) == (name != "single_task")


def test_a_model_without_temperatures_is_not_evaluated(
    workspace: Path, classes: ClassLists, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workspace)
    record = workspace / "models/single_task/model.json"
    before = record.read_text()
    record.write_text(before.replace('"type": 2.0', '"typ": 2.0'))
    try:
        with pytest.raises(ValueError, match="no temperature for type: the model is not calibrated"):
            evaluate("single_task")
    finally:
        record.write_text(before)


def test_nothing_timed_is_among_the_metrics(workspace: Path) -> None:
    for path in workspace.glob("metrics/**/*.json"):
        text = path.read_text()
        assert not any(word in text for word in ("latency", "seconds", "device", "memory"))


def test_twice_gives_the_same_bytes(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workspace)
    before = repeatable_files(workspace)
    run_all()
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
