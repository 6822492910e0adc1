"""A run of the benchmark as files: the rows as a CSV named by what it ran on, the rest as a JSON beside it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:  # a machine that only measures may lack it
    import pandas as pd

# Of full runs, and of the pipeline's quick one.
FOLDER = Path("reports/benchmarks")
QUICK_FOLDER = FOLDER / "quick"
# What tables are of: all families, the hybrid of recipe `base`, MONeT's line, compiled steps; photos loaded, prepared,
# on Ray, their copies, from shards.
CHECKPOINTING, HYBRID, MONET, COMPILED = "checkpointing", "hybrid-base", "monet", "compiled"
LOADING, PREPARING, ON_RAY, COPIES, SHARDS = "loading", "preparing", "ray-prepare", "copies", "shards"


@dataclass(frozen=True)
class Machine:
    """What a run was made on, and when (`2026-11-22`)."""

    device: str
    torch: str
    date: str

    def name(self, what: str) -> str:
        """Such as `checkpointing-NVIDIA-H200-torch-2.13.0-2026-11-22`."""
        words = (what, self.device, f"torch {self.torch}", self.date)
        return "-".join(re.sub(r"[^A-Za-z0-9.]+", "-", word).strip("-") for word in words)


@dataclass(frozen=True)
class BenchmarkSettings:
    """How a network is measured.

    The step whose memory is counted has `count_batch` images of `image_size_px`, at least 2 of them. Real steps have
    `time_batch` on a CPU, and as many as are counted on CUDA; each of `rounds` runs every way once. A network whose
    rounds take less than `timing_s` in all gets more of them.
    Raises `ValueError` for numbers that are too small.
    """

    image_size_px: int = 224
    count_batch: int = 8
    time_batch: int = 8
    rounds: int = 5
    timing_s: int = 0
    precisions: tuple[str, ...] = ("float32", "bf16")

    def __post_init__(self) -> None:
        least = {"image_size_px": 32, "count_batch": 2, "time_batch": 1, "rounds": 1, "timing_s": 0}
        for name, allowed in least.items():
            if getattr(self, name) < allowed:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least {allowed}")


@dataclass(frozen=True)
class Planning:
    """How long it took to plan for `model`: `seconds` from nothing, everything that the planner does included.

    `seconds_again` are those of a later process, which finds the kinds of units on disk; `None` was not measured.
    """

    model: str
    input_shape: str
    precision: str
    seconds: float
    seconds_again: float | None = None


def _empty_table() -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame()


@dataclass(frozen=True)
class Results:
    """The table of all rows, and per network the curve as solved: memory and time over those without checkpointing."""

    machine: Machine
    settings: BenchmarkSettings
    table: pd.DataFrame = field(default_factory=_empty_table)
    curves: Mapping[str, Sequence[tuple[float, float]]] = field(default_factory=dict)
    planning: Planning | None = None

    @property
    def variants(self) -> list[str]:
        """The networks that are in the table."""
        return [] if self.table.empty else list(dict.fromkeys(self.table["variant"]))

    def path(self, folder: Path, what: str = CHECKPOINTING) -> Path:
        """The CSV in `folder`, named by what it is of and what it ran on."""
        return folder / f"{self.machine.name(what)}.csv"

    def save(self, path: Path) -> None:
        """Write the table to `path` and everything else to the JSON file beside it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.table.to_csv(path, index=False, lineterminator="\n")
        rest: dict[str, Any] = {
            "machine": asdict(self.machine),
            "settings": asdict(self.settings),
            "planning": None if self.planning is None else asdict(self.planning),
            "curves": {name: [list(point) for point in curve] for name, curve in self.curves.items()},
        }
        path.with_suffix(".json").write_text(json.dumps(rest, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote. Raises `FileNotFoundError`, or `ValueError` for anything else."""
        import pandas as pd

        try:
            rest = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
            settings = rest["settings"] | {"precisions": tuple(rest["settings"]["precisions"])}
            return cls(
                Machine(**rest["machine"]),
                BenchmarkSettings(**settings),
                pd.read_csv(path).convert_dtypes(),
                {name: [(memory, time) for memory, time in curve] for name, curve in rest["curves"].items()},
                None if rest["planning"] is None else Planning(**rest["planning"]),
            )
        except (json.JSONDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError, KeyError, TypeError) as error:
            raise ValueError(f"{path} and its JSON are no results that the benchmark wrote: {error!r}") from None

    def joined(self, other: Self) -> Self:
        """These results, then those of `other`. Raises `ValueError` where it was made otherwise, or elsewhere."""
        import pandas as pd

        ours, theirs = self._made_with(), other._made_with()
        different = [f"{name}: {ours[name]} and {theirs[name]}" for name in ours if ours[name] != theirs[name]]
        if different:
            raise ValueError(
                f"the results of {', '.join(self.variants)} and of {', '.join(other.variants)} cannot stand in one "
                f"table ({'; '.join(different)}); measure all of them again, with --force"
            )
        return type(self)(
            self.machine,
            self.settings,
            pd.concat([table for table in (self.table, other.table) if not table.empty], ignore_index=True),
            {**self.curves, **other.curves},
            self.planning or other.planning,
        )

    def _made_with(self) -> dict[str, Any]:
        """All that two results must share to be compared; the date may differ."""
        return {"device": self.machine.device, "torch": self.machine.torch, **asdict(self.settings)}


def newest_results(folder: Path, what: str = CHECKPOINTING, suffix: str = ".csv") -> list[Path]:
    """Per device that there is a file of, the newest by the date in its name; in the order of the devices' names."""
    newest: dict[str, Path] = {}
    for path in sorted(folder.glob(f"{what}-*-torch-*{suffix}"), key=lambda path: path.stem[-10:]):
        newest[path.stem.partition("-torch-")[0]] = path
    return [newest[device] for device in sorted(newest)]
