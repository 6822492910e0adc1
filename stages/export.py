"""The packaged model as ONNX and as a torch program, compared with it on photos of the test split, and timed."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

from torch.utils.data import DataLoader, Subset

from aerofuse.common.files import write_json
from aerofuse.common.params import load_section
from aerofuse.data.dataset import PreparedSplit, spread
from aerofuse.inference.export import FILES, Exported, export_program, require_onnx, write_onnx, write_torch
from aerofuse.inference.export_check import check_export
from aerofuse.inference.package import load_package
from aerofuse.inference.unfamiliarity import load_unfamiliarity
from aerofuse.metrics.params import EvaluateParams, ExportParams
from aerofuse.report.export_page import export_page
from stages import run

PREPARED = Path("data/prepared")
PACKAGE = Path("models/aerofuse")
EXPORTED = Path("models/exported")
REPORTS = Path("reports")
_MOST_PHOTOS = 256  # which three programs see, on a CPU


def export() -> None:
    require_onnx()
    params = load_section(ExportParams, "export")
    evaluation = load_section(EvaluateParams, "recipes.{recipe}.evaluate")
    model, record = load_package(PACKAGE)
    unfamiliarity = load_unfamiliarity(PACKAGE, model.num_features)
    files = {name: EXPORTED / file for name, file in FILES.items()}
    program = export_program(model, record, unfamiliarity)
    write_torch(program, record, files["torch"])
    write_onnx(program, record, files["onnx"])

    test = PreparedSplit(PREPARED / "test.arrow", record.classes)
    loader = DataLoader(Subset(test, spread(len(test), _MOST_PHOTOS)), batch_size=evaluation.batch_size)
    check = check_export(
        Exported(model, record.temperatures, unfamiliarity).eval(),
        files,
        (images for images, _ in loader),
        record.image_size_px,
        evaluation.latency_runs,
        compiled=params.time_torch_compile,
    )
    write_json(Path("metrics/export.json"), {"export": check.metrics()})
    write_json(REPORTS / "export.json", check.to_json())
    page = export_page(check.to_json(), files, {name: version(name) for name in ("torch", "onnx", "onnxruntime")})
    (REPORTS / "export.md").write_text(page, encoding="utf-8")
    check.require_parity()


if __name__ == "__main__":
    run(export)
