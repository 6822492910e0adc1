"""The data report: photos, classes and labels of each split, and the photos that were left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from aerofuse.common.files import write_json
from aerofuse.common.markdown import markdown_table
from aerofuse.ingest.summary import DataSummary, Group
from aerofuse.plotting.data import draw_data, split_table
from aerofuse.plotting.images import draw_contact_sheet

_SHOWN = 50  # rows of a list on the page; report.json has all
_PICTURES = {"balance.png": "Photos of each class", "labels.png": "Clarity and block"}


def write_data_report(summary: DataSummary, prepared: Path, folder: Path) -> None:
    """Write `report.md`, `report.json` and the pictures to `folder`; `prepared` is the folder of the prepared splits.

    `labels.png` is left out where no photo has a label of clarity or block. Raises `FileNotFoundError` where a split
    is missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    draw_contact_sheet(prepared / "test.arrow", folder / "contact_sheet.png")
    data = asdict(summary)
    write_json(folder / "report.json", data)
    pictures = draw_data(data, folder)
    (folder / "report.md").write_text(_page(summary, pictures), encoding="utf-8")


def _page(summary: DataSummary, pictures: Sequence[str]) -> str:
    """Return the page as Markdown; `pictures` are the files of `_PICTURES` that were written."""
    total = sum(split.photos for split in summary.splits.values())
    parts = [
        "# The data",
        f"{total} photos are used, {len(summary.dropped)} were left out.",
        split_table(asdict(summary)).markdown(),
        "A label that is missing is left out of the loss and of every metric.",
        "Photos of the test split, evenly over the types, with their labels:",
        "![Photos with their labels](contact_sheet.png)",
        *(f"![{_PICTURES[name]}]({name})" for name in pictures),
        *_left_out_types(summary),
        *_merged(summary),
        *_unlearned(summary),
        *_duplicates(summary),
        *_left_out(summary),
    ]
    return "\n\n".join(parts) + "\n"


def _left_out_types(summary: DataSummary) -> Iterator[str]:
    if summary.left_out_types:
        names = ", ".join(f"{name} ({count})" for name, count in list(summary.left_out_types.items())[:_SHOWN])
        more = f" and {len(summary.left_out_types) - _SHOWN} more" if len(summary.left_out_types) > _SHOWN else ""
        yield f"Types that were not chosen (`data.only_types`, `data.min_photos`), with their photos: {names}{more}."


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
    yield from _leaks(summary)
    if summary.contradictions:
        yield f"{len(summary.contradictions)} images have more than one type; one of the labels must be wrong:"
        yield _group_table(summary.contradictions)
    if summary.duplicate_examples:
        yield "The most frequent images:"
        yield _group_table(summary.duplicate_examples)


def _leaks(summary: DataSummary) -> Iterator[str]:
    if summary.cut_validation:
        yield (
            f"The split that came with the data has no photos for validation: {summary.cut_validation} were cut from "
            "its training photos."
        )
    divided = {"images": summary.divided_duplicates, "airframes": summary.divided_airframes}
    for what, groups in divided.items():
        if groups:
            yield f"**{len(groups)} {what} are on two sides of the split that came with the data:**"
            yield _group_table(groups)
            if len(groups) > _SHOWN:
                yield f"and {len(groups) - _SHOWN} more, in report.json"
    if summary.moved:
        yield f"{len(summary.moved)} photos were moved, so that each image and each airframe is on one side:"
        yield markdown_table(["photo", "given for", "is in"], [list(photo) for photo in summary.moved[:_SHOWN]], "lll")
        if len(summary.moved) > _SHOWN:
            yield f"and {len(summary.moved) - _SHOWN} more, in report.json"
    elif any(divided.values()):
        yield (
            "That split was kept; what is measured on these photos is too good. `data.leaks: move` in params.yaml "
            "moves them to one side."
        )


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
