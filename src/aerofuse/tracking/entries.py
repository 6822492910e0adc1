"""What a training tells MLflow, as values that can be kept in a file: one JSON object each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

# What MLflow takes in one call.
MAX_PARAMS = 100
MAX_POINTS = 1000


@dataclass(frozen=True)
class Params:
    """At most `MAX_PARAMS` parameters."""

    values: dict[str, str]


class Point(NamedTuple):
    """One value of a metric; the time is in milliseconds since 1970."""

    name: str
    value: float
    time_ms: int
    step: int


@dataclass(frozen=True)
class Metrics:
    """At most `MAX_POINTS` points."""

    points: list[Point]


@dataclass(frozen=True)
class Artifact:
    """A file or a folder to keep a copy of."""

    path: str


@dataclass(frozen=True)
class End:
    """How and when the run ended: FINISHED, FAILED or KILLED."""

    status: str
    time_ms: int


Entry = Params | Metrics | Artifact | End


def to_record(entry: Entry) -> dict[str, Any]:
    """`entry` as it stands in a journal. NaN and infinities are written as Python's json writes them."""
    return {"kind": type(entry).__name__.lower(), **asdict(entry)}


def from_record(record: Mapping[str, Any]) -> Entry:
    """The entry that `to_record` made `record` of. Raises `ValueError` for anything else."""
    try:
        match record["kind"]:
            case "params":
                return Params(dict(record["values"]))
            case "metrics":
                return Metrics([Point(*point) for point in record["points"]])
            case "artifact":
                return Artifact(str(record["path"]))
            case "end":
                return End(str(record["status"]), int(record["time_ms"]))
    except (KeyError, TypeError) as error:
        raise ValueError(f"no entry of a journal: {record}") from error
    raise ValueError(f"unknown kind {record['kind']!r}; there are params, metrics, artifact and end")
