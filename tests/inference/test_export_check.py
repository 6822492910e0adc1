from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch._dynamo
from torch._inductor import config as inductor

from aerofuse.inference.export import Exported, export_program, write_onnx, write_torch
from aerofuse.inference.export_check import BATCH_SIZES, ExportCheck, Parity, check_export
from aerofuse.inference.package import load_package
from aerofuse.metrics.latency import Latency
from aerofuse.report.export_page import export_page
from tests.inference.small_packages import write_model

EXPECTED = {
    "type_probabilities": np.array([[0.7, 0.3], [0.4, 0.6]], np.float32),
    "clarity": np.array([0.5, 0.25], np.float32),
}


def changed(name: str, row: int, value: Any) -> dict[str, np.ndarray]:
    found = {output: values.copy() for output, values in EXPECTED.items()}
    found[name][row] = value
    return found


def test_parity_counts_images_and_finds_the_largest_difference() -> None:
    parity = Parity()
    parity.add(EXPECTED, EXPECTED)
    assert (parity.images, parity.max_difference, parity.same_top1) == (2, 0.0, 1.0)
    parity.add(EXPECTED, changed("clarity", 1, 0.26))
    assert parity.max_difference == pytest.approx(0.01)
    assert parity.same_top1 == 1.0
    parity.add(EXPECTED, changed("type_probabilities", 1, [0.6, 0.4]))
    assert (parity.images, parity.other_top1) == (6, 1)
    assert parity.max_difference == pytest.approx(0.2)


def test_nan_is_no_parity() -> None:
    check = ExportCheck("CPU", {"onnx": Parity()})
    check.parity["onnx"].add(EXPECTED, changed("clarity", 0, np.nan))
    assert check.parity["onnx"].max_difference == np.inf
    with pytest.raises(ValueError, match=r"exported as onnx differs from it by up to inf"):
        check.require_parity()


def test_a_program_that_differs_is_refused() -> None:
    check = ExportCheck("CPU", {"onnx": Parity(10, 0.9e-4, 0), "torch": Parity(10, 0.0, 0)})
    check.require_parity()
    check.parity["onnx"] = Parity(10, 1.1e-4, 1)
    with pytest.raises(ValueError, match=r"another class for 1 of 10 images; 0\.0001 is allowed"):
        check.require_parity()


def test_the_fastest_is_named_for_each_batch() -> None:
    times = {"torch eager": (5.0, 60.0), "ONNX Runtime": (3.0, 70.0)}
    latency = {
        way: {1: Latency(one, one, "CPU", 0.0), 16: Latency(many, many, "CPU", 0.0)}
        for way, (one, many) in times.items()
    }
    check = ExportCheck("CPU", {}, latency)
    assert (check.fastest(1), check.fastest(16)) == ("ONNX Runtime", "torch eager")


@pytest.mark.slow
def test_where_there_is_no_compiler_the_report_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch._dynamo.reset()
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(inductor.cpp, "cxx", ("/no/such/compiler",))
    monkeypatch.setattr(inductor, "fx_graph_cache", False)
    model, record = load_package(write_model(tmp_path / "model", "single_task"))
    files = {"onnx": tmp_path / "model.onnx", "torch": tmp_path / "model.pt2"}
    program = export_program(model, record)
    write_onnx(program, record, files["onnx"])
    write_torch(program, record, files["torch"])
    batches = [torch.randint(0, 256, (3, 3, 96, 96), dtype=torch.uint8) for _ in range(2)]
    check = check_export(Exported(model, record.temperatures).eval(), files, batches, 96, 2, compiled=True)
    check.require_parity()
    assert {parity.images for parity in check.parity.values()} == {6}
    assert check.latency.keys() == {"torch eager", "torch .pt2", "ONNX Runtime"}
    assert "compiler" in check.failed["torch.compile"].lower()
    assert check.metrics()["onnx_same_top1"] == 1.0
    assert not any("ms" in name or "latency" in name for name in check.metrics())
    page = export_page(check.to_json(), files, {"torch": "2.13.0"})
    assert "torch.compile does not run here: " in page
    for size in BATCH_SIZES:
        assert f"Fastest for a batch of {size}: **{check.fastest(size)}**" in page
