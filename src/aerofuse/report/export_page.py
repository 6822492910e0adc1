"""The page on the exported model: whether its answers are the same, and the fastest way to run it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from aerofuse.common.markdown import markdown_table
from aerofuse.inference.export_check import BATCH_SIZES, TOLERANCE, ExportCheck
from aerofuse.plotting.wording import write_value
from aerofuse.report.tables import export_table

_BYTES_PER_MB = 1e6


def export_page(check: ExportCheck, files: Mapping[str, Path], versions: Mapping[str, str]) -> str:
    """Return a Markdown page; `files` are those that were checked, by format."""
    parity = [
        [
            f"`{path.name}`",
            f"{path.stat().st_size / _BYTES_PER_MB:.1f} MB",
            f"{check.parity[name].images}",
            write_value(check.parity[name].same_top1, "%"),
            f"{check.parity[name].max_difference:.1e}",
        ]
        for name, path in files.items()
    ]
    fastest = " ".join(f"Fastest for a batch of {size}: **{check.fastest(size)}**." for size in BATCH_SIZES)
    failed = "".join(f"\n{way} does not run here: {reason}\n" for way, reason in check.failed.items())
    written = ", ".join(f"{name} {version}" for name, version in versions.items())
    return f"""# The exported model

Written from `models/aerofuse` with {written}.

## The same answers

Against the model in torch, on every test image: the share whose likeliest type and airline are the same, and the
largest difference of any probability or value ({TOLERANCE:g} is allowed).

{markdown_table(["file", "size", "test images", "same top-1", "largest difference"], parity, "lrrrr")}

## Time

Median per batch, from uint8 images to probabilities, on {check.device}.

{export_table(check.to_json()).markdown()}

{fastest}
{failed}"""
