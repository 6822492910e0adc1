from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path

import pytest

from aerofuse.common.files import write_json
from tests.imports import ROOT
from tools.benchmarks.results import FOLDER
from tools.benchmarks.rows import AT_HALF, BASELINE, SWITCH
from tools.gpu_evidence.names import GATE, HYBRID, IN_SERIES, LATENCY, MONET, MONET_WAYS, NETWORKS, THROUGHPUT, Row
from tools.gpu_evidence.plans import PlanRow
from tools.gpu_tables import gpu_tables
from tools.readme import page_blocks, replace_blocks

RAN_ON = {
    "device": "NVIDIA H200",
    "torch": "2.11.0+cu130",
    "date": "2026-11-29",
    "driver": "580.1",
    "busy_before_percent": "0",
}


def plan_row(network: str, way: str, predicted_gb: float, peak_gb: float, time: float) -> Row:
    size = (round(predicted_gb * 1e9), round(peak_gb * 1e9), round(1.1 * peak_gb * 1e9))
    return asdict(PlanRow(network, way, "bf16", "64x3x224x224", None, *size, time - 0.01, time))


def write(folder: Path, part: str, *rows: Row, left_out: tuple[str, ...] = (), date: str = "2026-11-29") -> None:
    content = {"ran_on": RAN_ON | {"date": date}, "left_out": left_out, "rows": rows}
    write_json(folder / f"gpu-{part}-NVIDIA-H200-torch-2.11.0-cu130-{date}.json", content)


def cells(text: str, first: str) -> list[str]:
    """Those of the row that begins so."""
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {first} ")]
    return [cell.strip() for cell in line.split("|")[2:-1]]


def test_a_rehearsal_is_not_shown(tmp_path: Path) -> None:
    write_json(tmp_path / "rehearsal-gate-AMD-EPYC-torch-2.11.0-2026-11-29.json", {})
    assert gpu_tables(tmp_path) == ""


def test_the_page_gets_the_tables_when_there_are_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("docs", "reports"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("gpu-*", "*.parquet", "*.png"))
    page = (ROOT / "docs/planner.md").read_text(encoding="utf-8")
    assert "gpu" not in page_blocks()["docs/planner.md"]
    write(FOLDER, GATE, plan_row("hybrid", BASELINE, 19, 19, 1.0))
    text = replace_blocks(page, page_blocks()["docs/planner.md"])
    assert cells(text, "without checkpointing")[2] == "yes"
    assert "No GPU has been lent yet" not in text


def test_the_gate_is_judged_by_the_allocators_peak(tmp_path: Path) -> None:
    write(tmp_path, GATE, plan_row("hybrid", BASELINE, 19, 20.5, 1.0), plan_row("hybrid", AT_HALF, 12.0, 12.06, 1.05))
    text = gpu_tables(tmp_path)
    assert cells(text, "without checkpointing") == [
        "19.00 GB",
        "20.50 GB",
        "**no**",
        "7.3%",
        "22.55 GB",
        "0.99",
        "1.00",
    ]
    assert cells(text, AT_HALF)[2] == "yes"
    assert "NVIDIA H200, torch 2.11.0+cu130, 2026-11-29, driver 580.1, 0 % busy before." in text


def test_networks_are_a_row_each_and_what_is_missing_is_named(tmp_path: Path) -> None:
    lost = asdict(PlanRow("vit", SWITCH, "bf16", "64x3x224x224", None, outcome="out of memory"))
    write(
        tmp_path,
        NETWORKS,
        plan_row("vit", BASELINE, 10, 10, 1.0),
        lost,
        plan_row("vit", AT_HALF, 5, 5.05, 1.1),
        {"step": "swin", "outcome": "out of memory"},
        left_out=("convnext",),
    )
    text = gpu_tables(tmp_path)
    assert cells(text, "`vit`") == ["10.00 GB", "- / -", "- / -", "0.51 / 1.10 (1.09)", "- / -", "1.0%"]
    assert "Not measured: swin (out of memory); vit, timm's switch (out of memory)." in text
    assert "No time was left for convnext." in text


def test_the_other_parts(tmp_path: Path) -> None:
    first = next(iter(MONET_WAYS))
    write(tmp_path, MONET, plan_row("resnet50", BASELINE, 15, 15, 1.0), plan_row("resnet50", first, 10, 9.9, 1.05))
    speeds = [
        {"name": "eager", "network": name, "images_per_second": speed}
        for name, speed in ((HYBRID, 450.0), (IN_SERIES, 500.0))
    ]
    write(tmp_path, THROUGHPUT, *speeds)
    write(tmp_path, LATENCY, {"name": "eager, bf16", "network": HYBRID, "median_ms": 21.04, "p95_ms": 22.0})
    text = gpu_tables(tmp_path)
    assert cells(text, "             0.660") == ["1.032", "1.050", "1.040", "0.990"]
    assert cells(text, "eager") == ["450", "500", "0.90"]
    assert cells(text, "eager, bf16") == ["21.0", "22.0"]


@pytest.mark.parametrize("newest", ["2026-11-30", "2026-12-01"])
def test_the_newest_file_of_a_device_is_shown(tmp_path: Path, newest: str) -> None:
    write(tmp_path, GATE, plan_row("hybrid", BASELINE, 19, 19, 1.0))
    write(tmp_path, GATE, plan_row("hybrid", BASELINE, 18, 18, 1.0), date=newest)
    assert newest in gpu_tables(tmp_path)
    assert "19.00 GB" not in gpu_tables(tmp_path)
