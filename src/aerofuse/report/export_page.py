"""The page on the exported model: whether its answers are the same, and the fastest way to run it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aerofuse.common.markdown import Table, markdown_table
from aerofuse.plotting.wording import NONE, write_value


def export_page(export: Mapping[str, Any], files: Mapping[str, Path], versions: Mapping[str, str]) -> str:
    """Return a Markdown page; `export` is `reports/export.json`, `files` are those that were checked, by format."""
    parity = [
        [
            f"`{path.name}`",
            f"{path.stat().st_size / 1e6:.1f} MB",
            str(export["parity"][name]["images"]),
            write_value(export["parity"][name]["same_top1"], "%"),
            f"{export['parity'][name]['max_difference']:.1e}",
        ]
        for name, path in files.items()
    ]
    found = export["fastest_by_latency"]
    fastest = " ".join(f"Fastest for a batch of {size}: **{way}**." for size, way in found.items())
    failed = "".join(f"\n{way} does not run here: {reason}\n" for way, reason in export["failed"].items())
    written = ", ".join(f"{name} {version}" for name, version in versions.items())
    return f"""# The exported model

Written from `models/aerofuse` with {written}.

## The same answers

Against the model in torch, on images of the test split: the share whose likeliest type and airline are the same, and
the largest difference of any probability or value ({export["tolerance"]:g} is allowed).

{markdown_table(["file", "size", "test images", "same top-1", "largest difference"], parity, "lrrrr")}

## Time

Median per batch, from uint8 images to probabilities, on {export["device"]}.

{export_table(export).markdown()}

{fastest}
{failed}"""


def export_table(export: Mapping[str, Any]) -> Table:
    """Return the median time of each way to run the exported model; `export` is `reports/export.json`."""
    batches = list(export["fastest_by_latency"])
    lines = [
        [way, *(write_value(sizes[batch]["median"], "ms") for batch in batches)]
        for way, sizes in export["latency_ms"].items()
    ]
    lines += [[way, *(NONE for _ in batches)] for way in export["failed"]]
    return Table(["way to run", *(f"batch of {batch}" for batch in batches)], lines, "l" + "r" * len(batches))
