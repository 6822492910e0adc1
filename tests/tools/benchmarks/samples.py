"""Made-up results of all ten families, for tests of what is computed and drawn from them, and a network to measure."""

from __future__ import annotations

import dataclasses

from aerofuse.backbones.backbone import Backbone
from aerofuse.backbones.families import FAMILIES
from aerofuse.common.torchvision_pairing import ensure_torchvision_imports
from aerofuse.planning.estimates import Estimated
from tools.benchmarks.results import BenchmarkSettings, Machine, Planning, Results
from tools.benchmarks.rows import (
    AT_HALF,
    AT_SEGMENTS,
    AT_SWITCH,
    BASELINE,
    LEAST,
    PLANNED,
    RECOMPUTE_ALL,
    SEGMENTS,
    SELECTIVE,
    SWITCH,
    Differences,
    PeakCheck,
    Peaks,
    Promise,
    Row,
    Times,
    as_table,
)
from tools.benchmarks.subjects import Subject, input_shape, middle_variant

ensure_torchvision_imports()

from timm.models.convnext import ConvNeXt  # noqa: E402

UNCHECKED_BYTES = 800_000_000
# way: share of the baseline memory, time ratio
WAYS = {
    BASELINE: (1.0, 1.0),
    SWITCH: (0.3, 1.3),
    SELECTIVE: (0.6, 1.05),
    RECOMPUTE_ALL: (0.25, 1.28),
    SEGMENTS: (0.5, 1.22),
    AT_SWITCH: (0.3, 1.12),
    AT_SEGMENTS: (0.5, 1.06),
    AT_HALF: (0.49, 1.06),
    LEAST: (0.18, 1.25),
}
# The same plans on every machine.
ESTIMATED = Estimated(flops_per_second=5e10, bytes_per_second=1e10)
SETTINGS = BenchmarkSettings(count_batch=8, time_batch=2, rounds=3)


def row(family: str, way: str, precision: str = "float32", **changes: object) -> Row:
    """One row; its numbers differ a little from family to family."""
    share, time = WAYS[way]
    number = list(FAMILIES).index(family)
    share = share if way == BASELINE else share * (0.9 + 0.02 * number)
    time = 1 + (time - 1) * (0.8 + 0.04 * number)
    activations = round(share * UNCHECKED_BYTES)
    others = (60_000_000, 10_000_000, 120_000_000, 5_000_000)
    planned, timed = way in PLANNED, precision == "float32"
    made = Row(
        family,
        middle_variant(family),
        len(FAMILIES[family].variants),
        precision,
        way,
        "8x3x224x224",
        Peaks(
            activations,
            round(share, 4),
            activations + sum(others),
            *others,
            activations - 20_000_000,
            20_000_000,
            round(8 / share),
        ),
        Promise(activations, activations, time + 0.01 if timed else None) if planned else None,
        PeakCheck("2x3x224x224", activations // 4, activations // 4, 0.001) if planned or timed else None,
        Times(2, time, time - 0.02, time + 0.03, 0.012, time / 2) if timed else None,
        Differences(0, 160, 0, 106, 104 if way == SWITCH else 0, 0) if timed else None,
    )
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]  # fields of a row


def results(*rows: Row) -> Results:
    """Every way of every family in both precisions, or the rows given."""
    table = as_table(
        rows or [row(family, way, kind) for family in FAMILIES for kind in ("float32", "bf16") for way in WAYS]
    )
    curve = [(0.15, 1.3), (0.2, 1.2), (0.3, 1.1), (0.5, 1.05), (0.7, 1.02), (1.0, 1.0)]
    return Results(
        Machine("Imagined CPU, 2 threads", "2.13.0", "2026-11-22"),
        SETTINGS,
        table,
        dict.fromkeys(dict.fromkeys(table["variant"]), curve),
        Planning("hybrid of base", "16x3x224x224", "bf16", 4.0, 3.0),
    )


def tiny_subject(image_size_px: int = 64) -> Subject:
    """A ConvNeXt of four blocks."""

    model = ConvNeXt(
        patch_size=2, dims=(8, 16, 24, 32), depths=(1, 1, 1, 1), num_classes=0, drop_path_rate=0.1, ls_init_value=1.0
    )
    backbone = Backbone("convnext_thin", model).train()
    return Subject("convnext", "tiny", 5, backbone, input_shape("convnext", 1, image_size_px)[1:], tiny_subject)
