"""The table that the benchmark of gradient checkpointing makes: its ways to train, its columns, what was promised."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # a machine that only measures may lack it
    import pandas as pd

# As the committed tables have them; `POLICY_WORDS` is how they are shown.
BASELINE, SWITCH = "unchecked", "timm's switch"
SELECTIVE, RECOMPUTE_ALL, SEGMENTS = "keep_dear", "recompute_all", "segments=4"
POLICY_WORDS = {SELECTIVE: "selective"}
# Planned to hold no more than another way, half of what is held without checkpointing, or as little as possible.
AT_SWITCH, AT_SEGMENTS = "planned at the switch's peak", "planned at the peak of segments=4"
AT_HALF, LEAST = "planned at 50 %", "planned, least"
PLANNED = (AT_SWITCH, AT_SEGMENTS, AT_HALF, LEAST)

# The share of memory that the system which this one replaces promised to save, from and to.
PROMISED: Mapping[str, tuple[float, float]] = {
    "resnet": (0.30, 0.40),
    "mobilenet": (0.25, 0.35),
    "efficientnet": (0.30, 0.40),
    "efficientnetv2": (0.30, 0.40),
    "regnet": (0.30, 0.40),
    "vit": (0.40, 0.50),
    "swin": (0.40, 0.50),
    "swin3d": (0.40, 0.50),
    "maxvit": (0.40, 0.50),
    "convnext": (0.35, 0.45),
}
# MONeT's README, ResNet-50 at batch 184: GB without checkpointing; GB within which it was planned, and time over that
# without checkpointing.
MONET_UNCHECKED_GB = 15.06
MONET_PUBLISHED = ((10.01, 1.032), (6.00, 1.093), (4.99, 1.120))


@dataclass(frozen=True)
class Peaks:
    """What a step holds at most, counted on fake tensors.

    `peak_bytes` are activations and temporaries of a forward and backward pass, `peak_ratio` the same over that
    without checkpointing. The rest is of a whole step with AdamW: `total_peak_bytes`, and how it was shared by kind
    at that moment. `largest_batch` is about what fits into the same memory, from the counts of two batches.
    """

    peak_bytes: int
    peak_ratio: float
    total_peak_bytes: int
    parameters_bytes: int
    gradients_bytes: int
    optimizer_state_bytes: int
    inputs_bytes: int
    activations_bytes: int
    temporaries_bytes: int
    largest_batch: int


@dataclass(frozen=True)
class Promise:
    """What the planner says of a plan: its peak, that of its dynamic program, which knows units alone, and its time."""

    predicted_peak_bytes: int
    solved_peak_bytes: int
    predicted_time_ratio: float | None


@dataclass(frozen=True)
class PeakCheck:
    """The peak that was predicted for a real step beside the one that it had; `peak_error` is their ratio less 1.

    On CUDA all that the allocator held at most, without an optimiser; elsewhere activations and temporaries.
    """

    real_input_shape: str
    real_predicted_bytes: int
    real_peak_bytes: int
    peak_error: float


@dataclass(frozen=True)
class Times:
    """Real steps, over the same without checkpointing: median and quartiles over the rounds; `seconds` per step.

    `time_ratio_error` is the standard error of the median, `None` for fewer than three rounds.
    """

    time_batch: int
    time_ratio: float
    time_ratio_low: float
    time_ratio_high: float
    time_ratio_error: float | None
    seconds: float


@dataclass(frozen=True)
class Differences:
    """How many tensors differ in any bit from those of the baseline run, after two steps from one random state.

    `random_states_that_differ` is 0 or 1. `gradients` and `buffers` say how many there are.
    """

    losses_that_differ: int
    gradients: int
    gradients_that_differ: int
    buffers: int
    buffers_that_differ: int
    random_states_that_differ: int


@dataclass(frozen=True)
class Row:
    """One way to train one network in one precision. What was not measured is `None`."""

    family: str
    variant: str
    variants: int
    precision: str
    way: str
    input_shape: str
    peaks: Peaks
    promise: Promise | None = None
    check: PeakCheck | None = None
    times: Times | None = None
    differences: Differences | None = None

    def flat(self) -> dict[str, object]:
        """One value per column of the table."""
        flat: dict[str, object] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name not in _PARTS:
                flat[field.name] = value
            elif value is None:
                flat |= {part.name: None for part in fields(_PARTS[field.name])}
            else:
                flat |= asdict(value)
        return flat


_PARTS: Mapping[str, type[Peaks | Promise | PeakCheck | Times | Differences]] = {
    "peaks": Peaks,
    "promise": Promise,
    "check": PeakCheck,
    "times": Times,
    "differences": Differences,
}


def as_table(rows: Iterable[Row]) -> pd.DataFrame:
    """The rows as a table; whole numbers stay whole beside what was not measured."""
    import pandas as pd

    return pd.DataFrame([row.flat() for row in rows]).convert_dtypes()


# One network in one precision: its rows by way. A column that was not measured holds `pd.NA`.
Ways = Mapping[str, "pd.Series[Any]"]


def by_variant(table: pd.DataFrame, precision: str | None = None) -> dict[str, Ways]:
    """The rows of each network: in one precision, by default the first whose steps were timed."""
    if table.empty:
        return {}
    if precision is None:
        timed = table.loc[table["time_ratio"].notna(), "precision"]
        precision = "" if timed.empty else str(timed.iloc[0])
    networks: dict[str, dict[str, pd.Series[Any]]] = {}
    for _, row in table[table["precision"] == precision].iterrows():
        networks.setdefault(str(row["variant"]), {})[str(row["way"])] = row
    return dict(networks)


def planned(ways: Ways) -> list[pd.Series[Any]]:
    """The rows of the ways that follow a plan."""
    return [row for way, row in ways.items() if way in PLANNED]


def is_known(value: Any) -> bool:
    """Whether a value of the table was measured."""
    import pandas as pd

    return bool(pd.notna(value))


def largest(values: Iterable[Any]) -> float | None:
    """The largest of those that were measured, if any."""
    return max((float(value) for value in values if is_known(value)), default=None)


def largest_peak_error(ways: Ways) -> float | None:
    """By how much the peak of a real step was off what was predicted, at most over the planned ways."""
    return largest(abs(row["peak_error"]) for row in planned(ways))


def largest_time_error(ways: Ways) -> float | None:
    """By how much the time was off what the planner predicted, in shares of the baseline step."""
    return largest(abs(row["predicted_time_ratio"] - row["time_ratio"]) for row in planned(ways))


def largest_standard_error(ways: Ways) -> float | None:
    """That of the times of planned ways, in shares of the baseline step; `None` for tables older than it."""
    return largest(row.get("time_ratio_error") for row in planned(ways))


def share_of_the_switchs_time(ways: Ways) -> float | None:
    """The extra time of a plan at the peak of timm's switch, as a share of the switch's own.

    `None` where the switch took none: what was timed is noise then. Raises `KeyError` where there is no such plan.
    """
    extra = ways[SWITCH]["time_ratio"] - 1
    return float((ways[AT_SWITCH]["time_ratio"] - 1) / extra) if extra > 0 else None
