"""The comparison as tables, and as a Markdown page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from aerofuse.common.markdown import Table
from aerofuse.comparison.comparison import Comparison, ModelRow
from aerofuse.comparison.gates import GateResult
from aerofuse.plotting.wording import (
    METRICS,
    MODELS,
    NONE,
    write_duration,
    write_interval,
    write_p_value,
    write_threshold,
    write_value,
)

_SPEED_RATIO_AIM = 15  # phase A, which learns from features, should be at least so much faster than phase C
GATE_HEADER = ("gate", "measured", "threshold", "status", "note")
REMARK_ON_MCNEMAR = (
    "McNemar: how many images only the first and only the second model has right, and the exact p-value of both being "
    "equally good."
)


def comparison_page(comparison: Comparison) -> str:
    """Return the whole page: how to read it, the models, their differences, the gates."""
    of_hybrid = [gate for gate in comparison.gates if gate.model == "hybrid"]
    of_baseline = [gate for gate in comparison.gates if gate.model != "hybrid"]
    parts = [
        "# Comparison of the three models",
        *introduction(comparison),
        "## Models",
        models_table(comparison).markdown(),
        *remarks_on_times(comparison),
        "## Differences",
        differences_table(comparison).markdown(),
        REMARK_ON_MCNEMAR,
        "## Gates",
        summary_of_gates(of_hybrid),
        _gates_table(of_hybrid),
        "The gates of accuracy for the multi-task model, to compare:",
        _gates_table(of_baseline),
    ]
    return "\n\n".join(parts) + "\n"


def introduction(comparison: Comparison) -> list[str]:
    """Return what was compared, and how to read it."""
    settings = comparison.settings
    return [
        f"{comparison.test_images} test images, recipe `{settings.recipe}`. Every number of a model comes from its "
        "one best checkpoint.",
        f"How to read it: brackets hold the {settings.confidence_level:.0%} confidence interval, from "
        f"{settings.resamples} resamples of the test images; where that of a difference contains 0, these images "
        "do not tell the two models apart. What another training seed would change is not in the intervals. The "
        "constant predictor always answers the median of the training labels: an MAE says something only below "
        "its. ECE, the expected calibration error, is how far confidence is from the share that is right.",
    ]


def remarks_on_times(comparison: Comparison) -> list[str]:
    """Return what the times are of."""
    hybrid = comparison.rows[-1]
    ratio = comparison.phase_speed_ratio
    aim = "reached" if ratio >= _SPEED_RATIO_AIM else "not reached"
    return [
        f"Latency: median over single images of {hybrid.times.image_size} px, on {hybrid.times.device}. "
        f"Training: on {hybrid.training.device}. Other programs took {hybrid.times.busy_elsewhere:.0%} of the "
        f"processors' time while the hybrid's latency was measured, and up to {hybrid.training.busy_elsewhere:.0%} "
        "while it was trained.",
        "Views of each photo: how often the backbones saw it in training. The hybrid's phase A, whose heads learn from "
        f"features, trains on {ratio:.1f} times as many images per second as phase C (everything); the aim of at "
        f"least {_SPEED_RATIO_AIM} is {aim}.",
    ]


def summary_of_gates(gates: Sequence[GateResult]) -> str:
    """Return how many of the hybrid's gates pass."""
    counts = Counter(gate.status for gate in gates)
    return (
        f"Of the hybrid's {len(gates)} gates, {counts['pass']} pass, {counts['fail']} fail, and "
        f"{counts['not measurable here']} are not measurable here."
    )


def models_table(comparison: Comparison) -> Table:
    """Return every metric of every model, with its interval where there is one, then size and times."""
    header = ["", *(MODELS[row.model] for row in comparison.rows), "constant predictor", "labelled images"]
    lines = []
    for metric, (name, unit) in METRICS.items():
        if any(metric in row.metrics for row in comparison.rows):
            constant = comparison.rows[-1].metrics.get(f"{metric}_constant")
            values = [_value_with_interval(row, metric, unit) for row in comparison.rows]
            counted = f"{metric.partition('_')[0]}_labelled"  # the same for every model
            images = next(int(row.metrics[counted]) for row in comparison.rows if counted in row.metrics)
            lines.append([name, *values, write_value(constant, unit), str(images)])
    measured: dict[str, Callable[[ModelRow], str]] = {
        "parameters": lambda row: f"{row.times.parameters / 1e6:.2f} M",
        "latency, batch 1": lambda row: f"{row.times.latency_ms:.1f} ms",
        "latency, 95th percentile": lambda row: f"{row.times.latency_p95_ms:.1f} ms",
        "training time": lambda row: write_duration(row.training.seconds),
        "views of each photo": lambda row: str(row.training.views),
        "images seen per second": lambda row: f"{row.training.images_per_second:.0f}",
        "peak training memory": lambda row: write_value(row.training.peak_memory_bytes, "GB"),
    }
    for name, write in measured.items():
        lines.append([name, *(write(row) for row in comparison.rows), "", ""])
    return Table(header, lines, "l" + "r" * (len(header) - 1))


def _value_with_interval(row: ModelRow, metric: str, unit: str) -> str:
    value = write_value(row.metrics.get(metric), unit)
    interval = row.intervals.get(metric)
    if metric not in row.metrics or interval is None:
        return value
    return f"{value} {write_interval(interval.low, interval.high, unit)}"


def differences_table(comparison: Comparison) -> Table:
    """Return every pair of models, metric by metric."""
    lines = []
    for entry in comparison.differences:
        name, unit = METRICS[entry.metric]
        unit = "points" if unit == "%" else unit
        found = entry.difference
        counts, p_value = NONE, NONE
        if entry.mcnemar is not None:
            counts = f"{entry.mcnemar.only_a} / {entry.mcnemar.only_b}"
            p_value = write_p_value(entry.mcnemar.p_value)
        lines.append(
            [
                f"{MODELS[entry.model_a]} minus {MODELS[entry.model_b]}",
                name,
                write_value(found.estimate, unit, signed=True),
                write_interval(found.low, found.high, unit, signed=True),
                str(entry.images),
                counts,
                p_value,
            ]
        )
    header = ["models", "metric", "difference", "interval", "images", "McNemar", "p"]
    return Table(header, lines, "llrrrrr")


def gate_cells(gate: GateResult) -> list[str]:
    """Return name, measured value, threshold, status and note of a gate."""
    return [
        gate.name,
        write_value(gate.measured, gate.unit, signed=gate.unit == "points"),
        f"{gate.direction} {write_threshold(gate.threshold, gate.unit)}",
        gate.status,
        gate.note,
    ]


def _gates_table(gates: Sequence[GateResult]) -> str:
    lines = [[f"**{cell}**" if cell == "fail" else cell for cell in gate_cells(gate)] for gate in gates]
    return Table(GATE_HEADER, lines, "lrrll").markdown()
