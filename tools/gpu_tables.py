"""The evidence of a GPU as Markdown, for docs/planner.md."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from aerofuse.common.files import read_json
from aerofuse.common.markdown import markdown_table
from tools.benchmarks.results import newest_results
from tools.benchmarks.rows import AT_HALF, AT_SWITCH, BASELINE, LEAST, SWITCH
from tools.gpu_evidence.names import (
    GATE,
    HYBRID,
    IN_SERIES,
    LATENCY,
    MONET,
    MONET_WAYS,
    NETWORKS,
    OFFLOAD,
    OK,
    THROUGHPUT,
    Row,
)

GATE_BYTES = 20e9
_NONE = "-"
_Ways = Mapping[str, Row]


def gpu_tables(folder: Path) -> str:
    """Return the tables of each device's newest files, and what they ran on; nothing where there are none."""
    parts = []
    for name, (title, write) in _TABLES.items():
        for path in newest_results(folder, f"gpu-{name}", ".json"):
            content = read_json(path)
            measured = [row for row in content["rows"] if "step" not in row]
            parts += [f"**{title}**", write(measured), f"{_ran_on(content)} From `{path.as_posix()}`."]
    return "\n\n".join(parts)


def _ran_on(content: Mapping[str, Any]) -> str:
    """Return in sentences what the numbers were measured on, and which are missing."""
    ran_on = content["ran_on"]
    words = [f"{ran_on['device']}, torch {ran_on['torch']}, {ran_on['date']}"]
    if ran_on.get("driver"):
        words.append(f"driver {ran_on['driver']}, {ran_on['busy_before_percent']} % busy before")
    sentences = [f"{', '.join(words)}."]
    missing = [f"{row['step']} ({row['outcome']})" for row in content["rows"] if "step" in row]
    missing += [f"{row['network']}, {row['way']} ({row['outcome']})" for row in content["rows"] if _failed(row)]
    if missing:
        sentences.append(f"Not measured: {'; '.join(missing)}.")
    if content["left_out"]:
        sentences.append(f"No time was left for {', '.join(content['left_out'])}.")
    return " ".join(sentences)


def _failed(row: Row) -> bool:
    return "way" in row and row["outcome"] != OK


def _gate_table(rows: Sequence[Row]) -> str:
    header = ["hybrid", "predicted", "allocator's peak", "below 20 GB", "off by", "reserved", "predicted time", "time"]
    cells = [
        [
            "without checkpointing" if row["way"] == BASELINE else row["way"],
            *(_gigabytes(row[name]) for name in ("predicted_peak_bytes", "peak_bytes")),
            _NONE if row["peak_bytes"] is None else ("yes" if row["peak_bytes"] < GATE_BYTES else "**no**"),
            _error([row]),
            _gigabytes(row["reserved_bytes"]),
            *(_number(row[name]) for name in ("predicted_time_ratio", "time_ratio")),
        ]
        for row in rows
    ]
    return markdown_table(header, cells, "lrrlrrrr")


def _networks_table(rows: Sequence[Row]) -> str:
    networks: dict[str, dict[str, Row]] = {}
    for row in rows:
        networks.setdefault(row["network"], {})[row["way"]] = row
    header = [
        "measured on",
        "without checkpointing",
        "switch: memory / time",
        "planned at its peak",
        "planned at 50 %",
        "least",
        "peaks, predicted against allocator",
    ]
    cells = [
        [
            f"`{network}`",
            _gigabytes(ways.get(BASELINE, {}).get("peak_bytes")),
            *(_memory_and_time(ways, way) for way in (SWITCH, AT_SWITCH, AT_HALF, LEAST)),
            _error(list(ways.values())),
        ]
        for network, ways in networks.items()
    ]
    return markdown_table(header, cells, "lrrrrrr")


def _monet_table(rows: Sequence[Row]) -> str:
    ways = {row["way"]: row for row in rows}
    header = ["memory, measured", "MONeT: time", "ours: time", "predicted time", "peak, measured over predicted"]
    cells = []
    for name, (_, published) in MONET_WAYS.items():
        row = ways.get(name, {})
        share = _ratio(row.get("peak_bytes"), ways.get(BASELINE, {}).get("peak_bytes"))
        error = _ratio(row.get("peak_bytes"), row.get("predicted_peak_bytes"))
        times = (published, row.get("time_ratio"), row.get("predicted_time_ratio"))
        cells.append([_number(value, 3) for value in (share, *times, error)])
    return markdown_table(header, cells, "rrrrr")


def _throughput_table(rows: Sequence[Row]) -> str:
    speeds = {(row["name"], row["network"]): row["images_per_second"] for row in rows}
    cells = []
    for how in dict.fromkeys(row["name"] for row in rows):
        ours, theirs = (speeds.get((how, network)) for network in (HYBRID, IN_SERIES))
        cells.append([how, _number(ours, 0), _number(theirs, 0), _number(_ratio(ours, theirs))])
    return markdown_table(["images a second", HYBRID, IN_SERIES, "ratio"], cells, "lrrr")


def _latency_table(rows: Sequence[Row]) -> str:
    cells = [[row["name"], _number(row["median_ms"], 1), _number(row["p95_ms"], 1)] for row in rows]
    return markdown_table(["one image", "median, ms", "95th percentile, ms"], cells, "lrr")


_TABLES: Mapping[str, tuple[str, Callable[[Sequence[Row]], str]]] = {
    GATE: ("The hybrid of `base`, last phase, batch 16, bf16, AdamW", _gate_table),
    NETWORKS: ("Middle variants, bf16, batch 64", _networks_table),
    MONET: ("ResNet-50, batch 184, float32, within MONeT's budgets", _monet_table),
    THROUGHPUT: ("Training the hybrid of `base`, bf16, batch 64, with AdamW", _throughput_table),
    LATENCY: ("The hybrid of `base`, one image", _latency_table),
    OFFLOAD: ("The same networks with offload, bf16, batch 64", _networks_table),
}


def _memory_and_time(ways: _Ways, way: str) -> str:
    row = ways.get(way, {})
    memory = _number(_ratio(row.get("peak_bytes"), ways.get(BASELINE, {}).get("peak_bytes")))
    predicted = row.get("predicted_time_ratio")
    return f"{memory} / {_number(row.get('time_ratio'))}" + ("" if predicted is None else f" ({_number(predicted)})")


def _error(rows: Sequence[Row]) -> str:
    """Return by how much predicted peaks are off, at most."""
    errors = [abs(row["predicted_peak_bytes"] / row["peak_bytes"] - 1) for row in rows if row["peak_bytes"]]
    return f"{max(errors):.1%}" if errors else _NONE


def _ratio(value: float | None, other: float | None) -> float | None:
    return value / other if value and other else None


def _gigabytes(num_bytes: float | None) -> str:
    return _NONE if num_bytes is None else f"{num_bytes / 1e9:.2f} GB"


def _number(value: float | None, digits: int = 2) -> str:
    return _NONE if value is None else f"{value:.{digits}f}"
