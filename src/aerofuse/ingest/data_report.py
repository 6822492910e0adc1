"""The data report: photos, classes and labels of each split, and the photos that were left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from matplotlib.ticker import MaxNLocator

from aerofuse.common.files import write_json
from aerofuse.common.markdown import markdown_table
from aerofuse.data.labels import REGRESSION_TASKS, TASKS
from aerofuse.ingest.summary import DataSummary, Group
from aerofuse.plotting.contact_sheet import draw_contact_sheet
from aerofuse.plotting.style import BLUE, GREEN, ORANGE, new_figure, save_figure, styled

_SHOWN = 50  # rows of a list on the page; report.json has all
_SHEET_OF = "test"
_BARS = 60  # classes in balance.png
_SPLIT_COLOURS = (BLUE, ORANGE, GREEN)


def write_data_report(summary: DataSummary, prepared: Path, folder: Path) -> None:
    """Write `report.md`, `report.json` and the pictures to `folder`; `prepared` is the folder of the prepared splits.

    `labels.png` is left out where no photo has a label of clarity or block. Raises `FileNotFoundError` where a split
    is missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    draw_contact_sheet(prepared / f"{_SHEET_OF}.arrow", folder / "contact_sheet.png")
    write_json(folder / "report.json", asdict(summary))
    _draw_balance(summary, folder / "balance.png")
    has_values = any(sum(split.labelled[task] for task in REGRESSION_TASKS) for split in summary.splits.values())
    if has_values:
        _draw_labels(summary, folder / "labels.png")
    (folder / "report.md").write_text(_page(summary, has_values=has_values), encoding="utf-8")


def _page(summary: DataSummary, *, has_values: bool) -> str:
    total = sum(split.photos for split in summary.splits.values())
    parts = [
        "# The data",
        f"{total} photos are used, {len(summary.dropped)} were left out.",
        _split_table(summary),
        "A label that is missing is left out of the loss and of every metric.",
        f"Photos of the {_SHEET_OF} split, evenly over the types, with their labels:",
        "![Photos with their labels](contact_sheet.png)",
        "![Photos of each class](balance.png)",
        *(["![Clarity and block](labels.png)"] if has_values else []),
        *_merged(summary),
        *_unlearned(summary),
        *_duplicates(summary),
        *_left_out(summary),
    ]
    return "\n\n".join(parts) + "\n"


def _split_table(summary: DataSummary) -> str:
    splits = summary.splits.values()
    figures = {
        "photos": [split.photos for split in splits],
        "types": [len(split.types) for split in splits],
        "fewest photos of a type": [min(split.types.values(), default=0) for split in splits],
        "airlines": [len(split.airlines) for split in splits],
        "known airframes": [split.airframes for split in splits],
    } | {f"with {task}": [split.labelled[task] for split in splits] for task in TASKS}
    rows = [[name, *map(str, values)] for name, values in figures.items()]
    return markdown_table(["", *summary.splits], rows, "l" + "r" * len(splits))


def _merged(summary: DataSummary) -> Iterator[str]:
    if summary.merged_types:
        names = ", ".join(f"{name} ({count})" for name, count in summary.merged_types.items())
        yield f"Merged into one class, because they have too few airframes to be split: {names}."


def _unlearned(summary: DataSummary) -> Iterator[str]:
    """Name airlines without a training photo. Types are in every split; an airline with few airframes may not be."""
    learned, *others = summary.splits.values()
    photos = Counter[str]()
    for split in others:
        photos.update({name: count for name, count in split.airlines.items() if name not in learned.airlines})
    if photos:
        names = ", ".join(f"{name} ({count})" for name, count in photos.most_common(_SHOWN))
        yield (
            f"**No training photo shows {len(photos)} of the airlines**. No model can learn them, and photos of them "
            f"count as wrong: {names}. Add airframes of these airlines, or leave the cells empty."
        )


def _duplicates(summary: DataSummary) -> Iterator[str]:
    yield "## What belongs together"
    if summary.near_duplicates is not None:
        yield f"{summary.near_duplicates} images occur more than once (resized, recompressed or mirrored)."
    yield f"{summary.shared_airframes} airframes are on more than one photo."
    yield "Each is in one split, unless the split came with the data."
    if summary.divided_duplicates:
        yield (
            f"**{len(summary.divided_duplicates)} images are on two sides of the split that came with the data.** That "
            "split was kept; what is measured on these images is too good."
        )
        yield _group_table(summary.divided_duplicates)
    if summary.contradictions:
        yield f"{len(summary.contradictions)} images have more than one type; one of the labels must be wrong:"
        yield _group_table(summary.contradictions)
    if summary.duplicate_examples:
        yield "The most frequent images:"
        yield _group_table(summary.duplicate_examples)


def _group_table(groups: Sequence[Group]) -> str:
    rows = [
        [", ".join(group.filenames[:6]), str(len(group.filenames)), ", ".join(dict.fromkeys(group.splits))]
        for group in groups[:_SHOWN]
    ]
    return markdown_table(["photos", "number", "split"], rows, "lrl")


def _left_out(summary: DataSummary) -> Iterator[str]:
    yield "## What was left out"
    if not summary.dropped:
        yield "Every photo could be read."
    else:
        reasons = Counter(reason.split(" (")[0] for _, reason in summary.dropped)
        yield ", ".join(f"{reason}: {count}" for reason, count in reasons.most_common())
        rows = [[name, reason] for name, reason in summary.dropped[:_SHOWN]]
        yield markdown_table(["photo", "why"], rows, "ll")
        if len(summary.dropped) > _SHOWN:
            yield f"and {len(summary.dropped) - _SHOWN} more, in report.json"
    if summary.unlisted:
        examples = ", ".join(summary.unlisted[:5])
        yield f"{len(summary.unlisted)} image files are not in the table and were not read, such as {examples}."
    if summary.remarks:
        yield "Read with a remark:"
        rows = [[name, str(count)] for name, count in summary.remarks.items()]
        yield markdown_table(["remark", "photos"], rows, "lr")


@styled
def _draw_balance(summary: DataSummary, path: Path) -> None:
    """Draw the number of photos of each type, and of each airline, in every split."""
    kinds = [("type", [split.types for split in summary.splits.values()])]
    if any(split.airlines for split in summary.splits.values()):
        kinds.append(("airline", [split.airlines for split in summary.splits.values()]))
    lengths = [min(_BARS, len({name for counts in found for name in counts})) for _, found in kinds]
    figure = new_figure(8, 0.9 * len(kinds) + 0.2 * sum(lengths))
    panels = figure.subplots(len(kinds), 1, squeeze=False, height_ratios=lengths).flat
    for axes, (kind, found) in zip(panels, kinds, strict=True):
        totals = Counter[str]()
        for counts in found:
            totals.update(counts)
        names = [name for name, _ in totals.most_common(_BARS)]
        left = np.zeros(len(names))
        for name, counts, colour in zip(summary.splits, found, _SPLIT_COLOURS, strict=True):
            width = np.asarray([counts.get(one, 0) for one in names])
            axes.barh(names, width, left=left, color=colour, label=name, height=0.75)
            left += width
        axes.invert_yaxis()
        axes.margins(y=0.01)
        axes.set(xlabel="photos", title=kind if len(totals) <= _BARS else f"{kind}: {_BARS} of {len(totals)}")
        axes.grid(visible=False, axis="y")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside upper right", ncols=len(summary.splits))
    save_figure(figure, path)


@styled
def _draw_labels(summary: DataSummary, path: Path) -> None:
    """Draw the distributions of clarity and block in every split."""
    figure = new_figure(8, 2.9)
    for axes, task in zip(figure.subplots(1, len(REGRESSION_TASKS), squeeze=False).flat, REGRESSION_TASKS, strict=True):
        for (name, split), colour in zip(summary.splits.items(), _SPLIT_COLOURS, strict=True):
            counts = np.asarray(split.histograms[task], dtype=np.float64)
            edges = np.linspace(0, 1, len(counts) + 1)
            shares = counts / max(counts.sum(), 1)
            axes.stairs(shares, edges, color=colour, linewidth=1.8, label=f"{name}: {split.labelled[task]} labelled")
        axes.set(title=task, xlabel="label", ylabel="share of the labelled photos", ylim=(0, None))
        axes.legend()
    save_figure(figure, path)
