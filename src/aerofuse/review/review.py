"""A review of a collection: which labels look wrong, what is like those photos, and which photos to label next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from aerofuse.ingest.duplicates import joined_groups, near_duplicates
from aerofuse.review.collection import CHECKED, Collection
from aerofuse.review.frozen_features import FloatArray, FrozenNetwork, PhotoFeatures, find_features
from aerofuse.review.judgement import Judgement, confidently_wrong, judge, nearest, rank_suspects
from aerofuse.review.teaching import Lesson, choose_lessons

DUPLICATE_BITS = 32  # as data.duplicate_bits in params.yaml
NEIGHBOURS = 4


@dataclass(frozen=True)
class ReviewSettings:
    """How much is asked for: at most so many suspects, and so many photos to label."""

    suspects: int = 100
    to_label: int = 50
    batch_size: int = 16
    banner_px: int = 0
    seed: int = 0


@dataclass(frozen=True)
class Suspect:
    """A photo, by its row in `Review.labelled`, whose label looks wrong, and the rows of the photos most like it."""

    row: int
    likely: str
    likely_probability: float
    given_probability: float
    neighbours: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Review:
    """What was found.

    `labelled` and `unlabelled` are the photos that could be read, `problems` the others by file name with the reason.
    `judged` counts labels that could be judged, `confidently_wrong` those that confident learning calls wrong.
    `lone_types` have too few airframes or pictures to be judged. `lessons` count through `unlabelled`.
    """

    labelled: pd.DataFrame
    unlabelled: pd.DataFrame
    suspects: tuple[Suspect, ...]
    lessons: tuple[Lesson, ...]
    judged: int
    confidently_wrong: int
    lone_types: tuple[str, ...]
    problems: tuple[tuple[str, str], ...]
    network: str


def review_collection(collection: Collection, network: FrozenNetwork, settings: ReviewSettings) -> Review:
    """Find the suspects and the photos to label. Raises `ValueError` for photos that do not allow it."""
    files = [*collection.labelled["path"], *collection.unlabelled["path"]]
    found = find_features(files, network, batch_size=settings.batch_size, banner_px=settings.banner_px)
    count = len(collection.labelled)
    labelled = collection.labelled.iloc[[number for number in found.read if number < count]].reset_index(drop=True)
    unlabelled = collection.unlabelled.iloc[[number - count for number in found.read if number >= count]]
    known, unknown = found.features[: len(labelled)], found.features[len(labelled) :]
    judgement = judge(known, list(labelled["typename"]), photo_groups(labelled, found), settings.seed)
    judged_types = set(judgement.given[judgement.is_judged])
    lessons: Sequence[Lesson] = ()
    if len(unknown) and settings.to_label:
        lessons = choose_lessons(known, list(labelled["typename"]), unknown, settings.to_label)
    names = [*collection.labelled["filename"], *collection.unlabelled["filename"]]
    return Review(
        labelled=labelled,
        unlabelled=unlabelled.reset_index(drop=True),
        suspects=tuple(_suspects(judgement, labelled, known, settings.suspects)),
        lessons=tuple(lessons),
        judged=int(judgement.is_judged.sum()),
        confidently_wrong=int(confidently_wrong(judgement).sum()),
        lone_types=tuple(name for number, name in enumerate(judgement.classes) if number not in judged_types),
        problems=(
            *((str(names[number]), reason) for number, reason in found.problems.items()),
            *((name, "its row has no type, and there is no such photo") for name in collection.missing),
        ),
        network=f"{network.name}, {network.side_px} px",
    )


def photo_groups(labelled: pd.DataFrame, found: PhotoFeatures) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return the group of each labelled photo `[N]`: those of one airframe, and near-copies, are together."""
    copies = near_duplicates(found.fingerprints[: len(labelled)], DUPLICATE_BITS)
    if "registration" not in labelled:
        return copies
    return joined_groups(labelled["registration"].replace("", None), copies)


def _suspects(judgement: Judgement, labelled: pd.DataFrame, features: FloatArray, count: int) -> list[Suspect]:
    is_checked = labelled[CHECKED].astype(str).str.strip() != "" if CHECKED in labelled else None
    likely = judgement.likely
    given = judgement.given_probability
    # A label that is likelier than every other one is no suspect, however many are asked for.
    rows = [
        int(row)
        for row in rank_suspects(judgement)
        if (is_checked is None or not is_checked[row]) and judgement.probabilities[row, likely[row]] > given[row]
    ][:count]
    alike = nearest(features, np.asarray(rows, dtype=np.int64), NEIGHBOURS)
    return [
        Suspect(
            row,
            judgement.classes[likely[row]],
            float(judgement.probabilities[row, likely[row]]),
            float(given[row]),
            tuple(map(int, neighbours)),
        )
        for row, neighbours in zip(rows, alike, strict=True)
    ]
