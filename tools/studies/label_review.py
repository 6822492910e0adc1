"""How well `aerofuse review` finds wrong labels, and what its choice of photos to label is worth.

Run `python -m tools.studies.label_review PHOTOS`, with a folder of photos and its label table. One label of twenty is
replaced by another type at random. As many suspects as there are wrong labels are looked at: the precision is the share
of them that is wrong. `reports/review.md` and `reports/review.json` are the result: numbers alone, no photos.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean

import numpy as np
import numpy.typing as npt
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupShuffleSplit
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from aerofuse.backbones.package_weights import PACKAGES
from aerofuse.cli.arguments import at_least
from aerofuse.common.files import write_json
from aerofuse.common.markdown import markdown_table
from aerofuse.review.collection import find_table, read_table_collection
from aerofuse.review.frozen_features import (
    DEFAULT_BACKBONE,
    DEFAULT_SIDE_PX,
    FloatArray,
    find_features,
    packaged_network,
)
from aerofuse.review.judgement import Numbers, confidently_wrong, judge, make_classifier, rank_suspects
from aerofuse.review.review import photo_groups
from aerofuse.review.teaching import choose_lessons

REPORT = Path("reports/review.md")
WRONG_SHARE = 0.05
GOAL = 0.6
USED = "discriminant analysis of square roots (used)"
CLASSIFIERS: Mapping[str, Callable[[], Pipeline]] = {
    USED: make_classifier,
    "discriminant analysis": lambda: make_pipeline(LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.3)),
    "logistic regression": lambda: make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=300)),
}
# The shares of the photos that have a label at the start, and that are labelled then; a quarter is for the test.
_FIRST_SHARE, _MORE_SHARE, _TEST_SHARE = 0.2, 0.1, 0.25


@dataclass(frozen=True)
class Found:
    """What one classifier found with one seed.

    `precision` is that of as many suspects as there are wrong labels; `called_wrong` is the number that confident
    learning calls wrong, `called_precision` and `called_recall` say how well it does.
    """

    seed: int
    precision: float
    accuracy: float
    called_wrong: int
    called_precision: float
    called_recall: float


@dataclass(frozen=True)
class Taught:
    """The accuracy on photos for the test before and after more photos were labelled: those chosen, or any."""

    seed: int
    before: float
    chosen: float
    at_random: float


def plant_wrong(types: Sequence[str], seed: int) -> tuple[list[str], npt.NDArray[np.bool_]]:
    """Return the types with one of twenty replaced by another one, and which they are `[N]`."""
    names, numbers = np.unique(np.asarray(types, dtype=str), return_inverse=True)
    rng = np.random.default_rng(seed)
    wrong = rng.choice(len(numbers), round(WRONG_SHARE * len(numbers)), replace=False)
    numbers[wrong] = (numbers[wrong] + rng.integers(1, len(names), len(wrong))) % len(names)
    is_wrong = np.zeros(len(numbers), dtype=bool)
    is_wrong[wrong] = True
    return [str(names[number]) for number in numbers], is_wrong


def measure_suspects(
    features: FloatArray, types: Sequence[str], groups: Numbers, seed: int, classifier: Callable[[], Pipeline]
) -> Found:
    """Plant wrong labels and return how well they are found."""
    planted, is_wrong = plant_wrong(types, seed)
    judgement = judge(features, planted, groups, seed, classifier)
    likeliest = np.asarray(judgement.classes)[judgement.probabilities.argmax(axis=1)]
    called = confidently_wrong(judgement)
    return Found(
        seed=seed,
        precision=float(is_wrong[rank_suspects(judgement)[: is_wrong.sum()]].mean()),
        accuracy=float((likeliest == np.asarray(types, dtype=str)).mean()),
        called_wrong=int(called.sum()),
        called_precision=float(is_wrong[called].mean()) if called.any() else 0.0,
        called_recall=float(called[is_wrong].mean()),
    )


def measure_lessons(features: FloatArray, types: Sequence[str], groups: Numbers, seed: int) -> Taught:
    """Label a few photos, then more by choice or at random, and return the accuracy on photos of other groups."""
    names = np.asarray(types, dtype=str)
    rng = np.random.default_rng(seed)
    rest, test = next(GroupShuffleSplit(1, test_size=_TEST_SHARE, random_state=seed).split(features, names, groups))
    rest = rng.permutation(rest)
    first, pool = np.split(rest, [round(_FIRST_SHARE * len(names))])
    more = round(_MORE_SHARE * len(names))
    lessons = choose_lessons(features[first], list(names[first]), features[pool], more)
    chosen = pool[[lesson.photo for lesson in lessons]]

    def accuracy(photos: Numbers) -> float:
        return float(make_classifier().fit(features[photos], names[photos]).score(features[test], names[test]))

    return Taught(
        seed,
        before=accuracy(first),
        chosen=accuracy(np.concatenate([first, chosen])),
        at_random=accuracy(np.concatenate([first, pool[:more]])),
    )


def review_page(
    found: Mapping[str, Sequence[Found]], taught: Sequence[Taught], network: str, photos: int, source: str
) -> str:
    """Return the report as Markdown."""
    rows = [
        [
            name,
            f"{mean(one.precision for one in results):.3f}",
            f"{min(one.precision for one in results):.2f} to {max(one.precision for one in results):.2f}",
            f"{mean(one.accuracy for one in results):.3f}",
            f"{mean(one.called_wrong for one in results):.0f}",
            f"{mean(one.called_precision for one in results):.3f}",
            f"{mean(one.called_recall for one in results):.3f}",
        ]
        for name, results in found.items()
    ]
    header = ["classifier", "precision", "over seeds", "accuracy", "called wrong", "their precision", "their recall"]
    reached = mean(one.precision for one in found[USED])
    verdict = "reached" if reached >= GOAL else "not reached"
    seeds = ", ".join(str(one.seed) for one in found[USED])
    learned = [[str(one.seed), f"{one.before:.3f}", f"{one.chosen:.3f}", f"{one.at_random:.3f}"] for one in taught] + [
        ["mean", *(f"{mean(getattr(one, name) for one in taught):.3f}" for name in ("before", "chosen", "at_random"))]
    ]
    return f"""# Labels that look wrong: how many are found

{photos} photos: {source}. Features of {network}. `python -m tools.studies.label_review` writes this page.

## Planted wrong labels

One label of twenty was replaced by another type at random, with the seeds {seeds}.
As many suspects were looked at as there are wrong labels ({round(WRONG_SHARE * photos)}). The precision is the share of
them that had been replaced; at this number it is the recall too. The goal is {GOAL:g}, and it is {verdict}:
**{reached:.3f}**.

{markdown_table(header, rows, "lrrrrrr")}

Accuracy is that of the likeliest type against the labels before the replacement. `Called wrong` are the labels that
confident learning calls wrong (arXiv 1911.00068), without a limit on their number. Wrong labels that the photos had
already count as right here.

## Photos worth labelling

{_FIRST_SHARE:.0%} of the photos have a label, {_MORE_SHARE:.0%} more get one, and {_TEST_SHARE:.0%} are for the test.
The table has the accuracy on these before, after the choice of `aerofuse review`, and after a random choice. No label
is wrong here:

{markdown_table(["seed", "before", "chosen", "at random"], learned, "lrrr")}
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Look at the photos once, measure with every seed, and write the report."""
    parser = argparse.ArgumentParser(prog="python -m tools.studies.label_review", description=__doc__)
    parser.add_argument("photos", type=Path, metavar="PHOTOS", help="a folder of photos")
    parser.add_argument("--labels", type=Path, metavar="CSV", help="its label table (default: labels.csv in it)")
    parser.add_argument("--backbone", choices=list(PACKAGES), default=DEFAULT_BACKBONE, help="(default: lite0)")
    parser.add_argument("--image-size", type=at_least(32), default=DEFAULT_SIDE_PX, help="(default: 224)")
    parser.add_argument(
        "--seeds", type=at_least(0), nargs="+", default=[10, 11, 12, 13, 14], help="(default: 10 to 14)"
    )
    text = "what the photos are, for the report (default: the name of the folder)"
    parser.add_argument("--source", metavar="TEXT", help=text)
    options = parser.parse_args(arguments)
    labelled = read_table_collection(options.photos, options.labels or find_table(options.photos)).labelled
    network = packaged_network(options.backbone, options.image_size, torch.device("cpu"))
    seen = find_features(list(labelled["path"]), network)
    labelled = labelled.iloc[seen.read].reset_index(drop=True)
    types, groups = list(labelled["typename"]), photo_groups(labelled, seen)
    found = {
        name: [measure_suspects(seen.features, types, groups, seed, classifier) for seed in options.seeds]
        for name, classifier in CLASSIFIERS.items()
    }
    taught = [measure_lessons(seen.features, types, groups, seed) for seed in options.seeds]
    described = f"{network.name}, {network.side_px} px"
    source = options.source or options.photos.name
    page = review_page(found, taught, described, len(types), source)
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(page, encoding="utf-8")
    content = {
        "source": source,
        "network": described,
        "photos": len(types),
        "types": len(set(types)),
        "wrong_share": WRONG_SHARE,
        "suspects": {name: [asdict(one) for one in results] for name, results in found.items()},
        "lessons": [asdict(one) for one in taught],
    }
    write_json(REPORT.with_suffix(".json"), content)


if __name__ == "__main__":
    main()
