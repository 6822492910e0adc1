"""The worst mistakes, as the report shows them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aerofuse.plotting.chart import data_uri
from aerofuse.plotting.wording import write_list
from aerofuse.report.sources import PageSources, Picture


@dataclass(frozen=True)
class Mistake:
    """One photo: what is true, what was said, and what each branch added."""

    filename: str
    said: tuple[str, str]  # before what is true, and before what was predicted
    true: str
    predicted: str
    pictures: list[Picture]
    weights: dict[str, float]  # of an attention fusion, adding up to 1
    contributions: dict[str, str]


@dataclass(frozen=True)
class MistakeGroup:
    """The worst mistakes of one task."""

    title: str
    mistakes: list[Mistake]
    note: str


_GROUPS = {
    "type": ("Wrong types, the surest first", "No labelled test photo has a wrong type."),
    "clarity": ("Largest errors of clarity", "No test photo has a label of clarity."),
    "block": ("Largest errors of block", "No test photo has a label of block."),
}
_BRANCHES = {"cnn": "CNN", "transformer": "transformer"}


def mistake_groups(sources: PageSources) -> list[MistakeGroup]:
    """Return the worst mistakes with their pictures."""
    groups = []
    for task, (title, nothing) in _GROUPS.items():
        mistakes = sources.mistakes["mistakes"]
        shown = [_mistake(task, entry, sources) for entry in mistakes.get(task, [])]
        if task not in mistakes:
            nothing = f"The hybrid has no head for {task}."
        elif not shown and sources.params["explain"]["mistakes"] == 0:
            nothing = "None are to be shown: `explain.mistakes` is 0."
        groups.append(MistakeGroup(title, shown, "" if shown else nothing))
    return groups


def _mistake(task: str, entry: Mapping[str, Any], sources: PageSources) -> Mistake:
    if task == "type":
        said = "", " taken for"
        true, predicted = entry["true"], f"{entry['predicted']}, {entry['confidence']:.1%} sure"
    else:
        said = "true", ", predicted"
        true, predicted = f"{entry['true']:.2f}", f"{entry['predicted']:.2f}"
    pictures = []
    for name, file in entry["pictures"].items():
        title = _BRANCHES.get(name, name)
        looks = f"{entry['filename']}: where the {title} branch looks for {predicted}"
        uri = data_uri("jpeg", (sources.mistakes_folder / file).read_bytes())
        pictures.append(Picture(uri, f"Photo {entry['filename']}" if name == "photo" else looks, title))
    shares = entry["shares"] or {"measure": "", "values": {}}
    named = {_BRANCHES[branch]: value for branch, value in shares["values"].items()}
    weighted = shares["measure"] == "attention weight"
    return Mistake(
        filename=entry["filename"],
        said=said,
        true=true,
        predicted=predicted,
        pictures=pictures,
        weights=named if weighted else {},
        contributions={} if weighted else {branch: f"{value:+.2f}" for branch, value in named.items()},
    )


def mistake_notes(sources: PageSources) -> list[str]:
    """Return how to read the maps, and what was measured of them."""
    found = sources.mistakes
    notes = [
        "Bright is where the features of a branch speak for what was predicted, of clarity and block for a higher "
        "value; each map is scaled to its own maximum. The maps are Grad-CAM in its element-wise form (HiResCAM)."
    ]
    notes += _remarks_on_occlusion_test(found["occlusion_test"])
    if found["fusion_method"] == "attention":
        notes.append("The bar shows the weights that the fusion gives the two branches for that photo.")
    else:
        notes.append(
            f"The fusion `{found['fusion_method']}` has no weights to show. The numbers are gradient times input: what "
            "the features of each branch add to the answer, for a type in logits above the mean of all types."
        )
    return notes


def _remarks_on_occlusion_test(test: Mapping[str, Any]) -> list[str]:
    """Return whether the maps name what matters."""
    effects = {_BRANCHES[branch]: effect for branch, effect in test["effects"].items()}

    def falls(which: str) -> str:
        return write_list([f"{effect[which]:.1f} ({branch})" for branch, effect in effects.items()])

    notes = [
        f"An occlusion test on {test['photos']} test photos says whether they name what matters: with the quarter of a "
        f"photo covered that a map names most, the logit of the predicted type falls by {falls('hottest')}; with the "
        f"quarter that it names least, by {falls('coldest')}."
    ]
    poor = [branch for branch, effect in effects.items() if effect["hottest"] <= effect["coldest"]]
    if poor:
        notes.append(f"The maps of the {write_list(poor)} are thus no better than a guess.")
    return notes
