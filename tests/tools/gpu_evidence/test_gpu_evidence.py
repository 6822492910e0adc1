from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from aerofuse.memory.report import MemoryReport
from tests.conftest import ESTIMATED
from tests.imports import ROOT
from tests.new_python import check_in_new_python
from tests.tools.benchmarks.samples import tiny_subject
from tools.benchmarks.measuring import count
from tools.benchmarks.results import Machine
from tools.benchmarks.rows import AT_HALF, AT_SWITCH, BASELINE, LEAST, SWITCH
from tools.gpu_evidence import plans
from tools.gpu_evidence.__main__ import main
from tools.gpu_evidence.evidence import Evidence, EvidenceStep, attempt, describe_machine
from tools.gpu_evidence.names import (
    GATE,
    HYBRID,
    IN_SERIES,
    LATENCY,
    MONET,
    NETWORKS,
    OFFLOAD,
    OUT_OF_MEMORY,
    THROUGHPUT,
    Row,
)
from tools.gpu_evidence.parts import PARTS
from tools.gpu_evidence.sizes import EvidenceSizes

# Imports what torch, timm, torchvision and accelerate bring, and nothing else that is installed here.
ON_A_BARE_MACHINE = """
import sys
from importlib.machinery import PathFinder
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from packaging.requirements import Requirement

waiting, there = ["torch", "timm", "torchvision", "accelerate"], set()
while waiting:
    name = waiting.pop().lower().replace("_", "-")
    if name not in there:
        there.add(name)
        try:
            needed = [Requirement(text) for text in requires(name) or []]
        except PackageNotFoundError:
            continue
        waiting += [one.name for one in needed if one.marker is None or one.marker.evaluate({"extra": ""})]
missing = {
    module for module, packages in packages_distributions().items()
    if not there & {package.lower().replace("_", "-") for package in packages}
} - {"aerofuse"}

class BarePathFinder(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in missing else super().find_spec(name, path, target)

assert {"pandas", "pydantic", "scipy", "sklearn", "dvc", "mlflow", "albumentations", "ruamel"} <= missing
sys.meta_path[sys.meta_path.index(PathFinder)] = BarePathFinder
"""


def rehearse_on_a_bare_machine(folder: Path, *options: str) -> dict[str, dict[str, Any]]:
    """The files by part."""
    command = ["--out", str(folder), "--device", "cpu", "--rehearse", *options]
    check_in_new_python(
        f"{ON_A_BARE_MACHINE}\nfrom tools.gpu_evidence.__main__ import main\nassert main({command}) == 0", ROOT
    )
    return {path.name.split("-")[1]: json.loads(path.read_text(encoding="utf-8")) for path in folder.iterdir()}


@pytest.mark.slow
def test_all_parts_are_rehearsed_with_what_torch_timm_and_accelerate_bring(tmp_path: Path) -> None:
    files = rehearse_on_a_bare_machine(tmp_path, "--minutes", "60")
    assert set(files) == {GATE, NETWORKS, MONET, THROUGHPUT, LATENCY, OFFLOAD}
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 2**16
    for content in files.values():
        assert content["left_out"] == []
        assert content["ran_on"]["torch"] == torch.__version__
        assert not [row for row in content["rows"] if "step" in row]
    ways = {row["way"]: row for row in files[GATE]["rows"]}
    assert set(ways) == {BASELINE, SWITCH, AT_SWITCH, AT_HALF, LEAST}
    for row in (*ways.values(), *files[NETWORKS]["rows"], *files[OFFLOAD]["rows"]):
        assert row["precision"] == "bf16"
        if row["outcome"] == "ok":
            assert row["peak_bytes"] == pytest.approx(row["predicted_peak_bytes"], rel=0.01)
            assert row["time_ratio"] > 0
    assert [row["outcome"] == "ok" for row in files[MONET]["rows"]].count(True) >= 3
    assert {row["network"] for row in files[THROUGHPUT]["rows"]} == {HYBRID, IN_SERIES}
    assert all(row["images_per_second"] > 0 for row in files[THROUGHPUT]["rows"])
    assert all(0 < row["median_ms"] <= row["p95_ms"] for row in files[LATENCY]["rows"])


def test_one_part_is_rehearsed_within_its_minutes(tmp_path: Path) -> None:
    """What is compiled would take longer than the two minutes."""
    files = rehearse_on_a_bare_machine(tmp_path, "--minutes", "2", "--part", "4")
    (content,) = files.values()
    assert [row["name"] for row in content["rows"]] == 2 * ["eager"] + 2 * ["channels_last"]
    assert content["left_out"] == ["compiled"]


def test_the_project_is_found_where_it_is_not_installed() -> None:
    code = f"import sys; sys.path[:0] = [{str(ROOT)!r}]; import tools.gpu_evidence, aerofuse; print(aerofuse.__file__)"
    found = subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True, capture_output=True, text=True).stdout
    assert Path(found.strip()) == ROOT / "src/aerofuse/__init__.py"


def test_the_driver_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr("tools.gpu_evidence.evidence.machine", lambda device: Machine("NVIDIA H200", "2.11", "today"))
    for answer, driver in (("580.159.03, 3, 512, 143771", "580.159.03"), ("No devices were found", None)):
        program.write_text(f"#!/bin/sh\necho '{answer}'\n")
        program.chmod(0o755)
        found = describe_machine(torch.device("cuda"))
        assert (found["device"], found["driver"]) == ("NVIDIA H200", driver)
        assert found["busy_before_percent"] == (driver and "3")


def steps(*seconds: float) -> list[EvidenceStep]:
    return [EvidenceStep(f"{each:.0f} s", each, lambda each=each: [{"took": each}]) for each in seconds]  # type: ignore[misc]


def test_a_step_for_which_there_is_no_time_is_not_begun(tmp_path: Path) -> None:
    evidence = Evidence(tmp_path / "file.json", {"device": "imagined"})
    evidence.gather(steps(1, 500, 2), time.monotonic() + 300)
    content = json.loads((tmp_path / "file.json").read_text(encoding="utf-8"))
    assert content["rows"] == [{"took": 1}, {"took": 2}]
    assert content["left_out"] == ["500 s"]
    evidence.gather(steps(3), time.monotonic())
    assert evidence.left_out == ["500 s", "3 s"]


def test_the_file_has_every_step_that_is_over(tmp_path: Path) -> None:
    def killed() -> list[Row]:
        raise KeyboardInterrupt

    evidence = Evidence(tmp_path / "file.json", {})
    with pytest.raises(KeyboardInterrupt):
        evidence.gather([*steps(1), EvidenceStep("killed", 1, killed)], time.monotonic() + 300)
    assert json.loads((tmp_path / "file.json").read_text(encoding="utf-8"))["rows"] == [{"took": 1}]


def test_what_fails_is_a_row_and_the_others_go_on(tmp_path: Path) -> None:
    def too_large() -> list[Row]:
        raise torch.OutOfMemoryError("CUDA out of memory")

    def wrong() -> list[Row]:
        raise RuntimeError("no kernel\nfor this")

    evidence = Evidence(tmp_path / "file.json", {})
    failing = [EvidenceStep("large", 1, too_large), EvidenceStep("wrong", 1, wrong)]
    evidence.gather([*failing, *steps(1)], time.monotonic() + 300)
    assert evidence.rows == [
        {"step": "large", "outcome": OUT_OF_MEMORY},
        {"step": "wrong", "outcome": "RuntimeError: no kernel"},
        {"took": 1},
    ]
    assert evidence.failed == ["wrong"]


def test_a_way_that_does_not_fit_is_recorded_and_the_others_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    real_steps = []

    def first_is_too_large(*arguments: Any, fake: bool = True, **options: Any) -> MemoryReport:
        if not fake:
            real_steps.append(arguments)
            if len(real_steps) == 2:
                raise torch.OutOfMemoryError("CUDA out of memory")
        return count(*arguments, fake=fake, **options)

    monkeypatch.setattr(plans, "count", first_is_too_large)
    monkeypatch.setattr(plans, "Measured", lambda batch: ESTIMATED)
    monkeypatch.setattr(plans, "backbone_subject", lambda network, size_px, device: tiny_subject(size_px))
    rows = {row["way"]: row for row in plans.network_rows(EvidenceSizes.rehearsal(torch.device("cpu")), "tiny")}
    assert rows[SWITCH]["outcome"] == OUT_OF_MEMORY
    assert rows[SWITCH]["predicted_peak_bytes"] > 0
    assert rows[SWITCH]["peak_bytes"] is rows[SWITCH]["time_ratio"] is None
    for way in (BASELINE, AT_SWITCH, LEAST):
        assert rows[way]["peak_bytes"] == pytest.approx(rows[way]["predicted_peak_bytes"], rel=0.01)
        assert rows[way]["time_ratio"] > 0


def test_attempts_give_what_is_called() -> None:
    assert attempt(lambda: 3) == (3, "ok")


def test_the_sizes_are_those_that_were_asked_for() -> None:
    sizes = EvidenceSizes.full(torch.device("cpu"))
    assert (len(sizes.networks), sizes.batch, sizes.hybrid_batch, sizes.monet_batch) == (10, 64, 16, 184)
    assert sizes.recipe["backbones"]["cnn"] == "convnext_base"
    assert sizes.recipe["backbones"]["transformer"] == "swin_base_patch4_window7_224"
    for part in PARTS:
        assert 60 * part.minutes == sum(step.seconds for step in part.steps(sizes)) < 60 * 9
    assert len(PARTS) <= 8


def test_a_cpu_only_rehearses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--out", str(tmp_path), "--device", "cpu"])
    assert "add --rehearse" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_help_lists_the_parts(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = capsys.readouterr().out
    assert all(f"{number}  {part.name}, " in shown for number, part in enumerate(PARTS, start=1))
