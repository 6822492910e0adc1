"""The sections of the report on costs, data and settings, with a sentence where there is nothing to show."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ruamel.yaml import YAML

from aerofuse.common.markdown import Table
from aerofuse.data.labels import CLASSIFICATION_TASKS, REGRESSION_TASKS
from aerofuse.plotting.charts import Chart
from aerofuse.plotting.wording import MODELS, NONE, STAGES, write_bytes, write_duration, write_list, write_value
from aerofuse.report.cost_charts import cost_charts
from aerofuse.report.data_charts import data_charts, split_table
from aerofuse.report.pictures import Picture, data_uri
from aerofuse.report.sources import PageSources

_FILES = {"onnx": "The ONNX file", "torch": "The torch program"}


@dataclass(frozen=True)
class CostSection:
    """Charts, the exact numbers of every training stage, and remarks."""

    charts: list[Chart]
    table: Table
    notes: list[str]


def cost_section(sources: PageSources) -> CostSection:
    """Memory and time."""
    lines = []
    for stage, times in sources.training.items():
        memory = sources.memory[stage]
        lines.append(
            [
                STAGES[stage],
                write_duration(times.seconds),
                str(times.epochs),
                f"{times.images_per_second:.0f}",
                NONE if memory is None else str(memory.batch_size),
                NONE if memory is None else write_bytes(memory.predicted_peak_bytes),
                NONE if memory is None or memory.peak_bytes is None else write_bytes(memory.peak_bytes),
                NONE if memory is None else memory.measured,
            ]
        )
    header = ["stage", "time", "epochs", "images / s", "batch", "peak, predicted", "peak", "how measured"]
    return CostSection(cost_charts(sources), Table(header, lines, "lrrrrrrl"), _remarks_on_memory(sources))


def _remarks_on_memory(sources: PageSources) -> list[str]:
    notes = []
    devices = list(dict.fromkeys(times.device for times in sources.training.values()))
    if all(times.peak_memory_bytes is None for times in sources.training.values()):
        notes.append(
            f"Trained on {write_list(devices)}, without a GPU: there is no memory of a GPU to measure. What is shown "
            "is what a training step holds, counted."
        )
    without = [STAGES[stage] for stage, record in sources.memory.items() if record is None]
    if without:
        notes.append(f"No memory was recorded for {write_list(without)}.")
    return notes


@dataclass(frozen=True)
class ExportSection:
    """Time of the packaged model in each way to run it, which is fastest, and whether the files say the same."""

    table: Table
    notes: list[str]


def export_section(export: Mapping[str, Any]) -> ExportSection:
    """The exported model, as `aerofuse.inference.export_check` found it."""
    batches = list(export["fastest_by_latency"])
    lines = [
        [way, *(write_value(sizes[batch]["median"], "ms") for batch in batches)]
        for way, sizes in export["latency_ms"].items()
    ]
    lines += [[way, *(NONE for _ in batches)] for way in export["failed"]]
    notes = [f"Fastest for a batch of {batch}: {way}." for batch, way in export["fastest_by_latency"].items()]
    notes += [f"{way} does not run here: {reason}" for way, reason in export["failed"].items()]
    notes += [
        f"{_FILES[name]} names the same type and airline as the model in torch on "
        f"{write_value(found['same_top1'], '%')} of {found['images']} test images; the largest difference of any "
        f"answer is {found['max_difference']:.1e}."
        for name, found in export["parity"].items()
    ]
    return ExportSection(
        Table(["way to run", *(f"batch of {batch}" for batch in batches)], lines, "l" + "r" * len(batches)), notes
    )


@dataclass(frozen=True)
class DataSection:
    """What the models learned from."""

    table: Table
    charts: list[Chart]
    sheet: Picture | None
    notes: list[str]


def data_section(sources: PageSources) -> DataSection:
    """The data report, shortened."""
    data = sources.data
    photos = sum(split["photos"] for split in data["splits"].values())
    notes = [f"{photos} photos were used, {len(data['dropped'])} were left out."]
    if data["dropped"]:
        reasons = Counter(reason.split(" (")[0] for _, reason in data["dropped"])
        notes.append("Left out: " + ", ".join(f"{reason} ({count})" for reason, count in reasons.most_common(8)) + ".")
    if data["near_duplicates"] is not None:
        notes.append(f"{data['near_duplicates']} pictures are there more than once.")
    if data["divided_duplicates"]:
        notes.append(
            f"{len(data['divided_duplicates'])} pictures are on two sides of the split that the data came with; what "
            "is measured on them is too good."
        )
    notes.append(
        f"{data['shared_airframes']} airframes are on more than one photo. Unless a split came with the data, each "
        "stays on one side of it."
    )
    if data["merged_types"]:
        notes.append(f"Merged into one class, for they have too few airframes: {', '.join(data['merged_types'])}.")
    for task in (*CLASSIFICATION_TASKS, *REGRESSION_TASKS):
        if not any(split["labelled"][task] for split in data["splits"].values()):
            notes.append(f"No photo has a label of {task}: that head learned nothing and nothing of it is measured.")
    sheet = None
    if sources.contact_sheet.is_file():
        alt = "Photos of the test split, evenly over the types, each with its type, airline, clarity and block"
        sheet = Picture(data_uri(sources.contact_sheet), alt, "Photos of the test split with their labels")
    return DataSection(split_table(data), data_charts(data), sheet, notes)


def devices_table(sources: PageSources) -> Table:
    """What each stage ran on, and how its training went."""
    lines = [
        [
            STAGES[stage],
            times.device,
            NONE if (memory := sources.memory[stage]) is None else memory.policy,
            str(times.resumed),
        ]
        for stage, times in sources.training.items()
    ]
    lines += [
        [f"latency, {MODELS[row.model]}", f"{row.times.device}, {row.times.image_size} px", NONE, NONE]
        for row in sources.comparison.rows
    ]
    return Table(["stage", "device", "saved for the backward pass", "times resumed"], lines, "lllr")


def params_text(params: Mapping[str, Any]) -> str:
    """The parameters as YAML."""
    buffer = io.StringIO()
    yaml = YAML(typ="safe")
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.dump(dict(params), buffer)
    return buffer.getvalue()
