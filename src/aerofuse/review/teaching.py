"""Which unlabelled photos would teach a model most: those that it is unsure of, and that differ from each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from aerofuse.review.frozen_features import FloatArray
from aerofuse.review.judgement import Numbers, make_classifier, unit_directions


@dataclass(frozen=True)
class Lesson:
    """An unlabelled photo by its number, its likeliest type with its probability, and the runner-up."""

    photo: int
    likely: str
    probability: float
    runner_up: str


def choose_lessons(labelled: FloatArray, types: Sequence[str], unlabelled: FloatArray, count: int) -> list[Lesson]:
    """Choose up to `count` of the unlabelled photos, the most useful first; features are `[N, D]` and `[M, D]`.

    A greedy k-centre (Sener and Savarese, 2018, arXiv 1708.00489), weighted: each step takes the photo with the
    largest product of its uncertainty and its distance to all photos that have a label or were chosen before.
    Uncertainty is 1 minus the margin between the two likeliest types. Copies of a chosen photo are not chosen.
    """
    names, given = np.unique(np.asarray(types, dtype=str), return_inverse=True)
    if len(names) < 2:
        raise ValueError(f"the labelled photos have {len(names)} type; at least two are needed")
    classifier = make_classifier().fit(labelled, given)
    probabilities = classifier.predict_proba(unlabelled)
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :2]
    best, second = np.take_along_axis(probabilities, order, axis=1).T
    uncertainty = 1 - (best - second)
    directions = unit_directions(np.concatenate([labelled, unlabelled]))
    chosen = _weighted_centres(directions[: len(labelled)], directions[len(labelled) :], uncertainty, count)
    return [
        Lesson(int(photo), str(names[order[photo, 0]]), float(best[photo]), str(names[order[photo, 1]]))
        for photo in chosen
    ]


_SAME = 1e-3  # a distance of copies; from 0 to 2


def _weighted_centres(known: FloatArray, candidates: FloatArray, weights: FloatArray, count: int) -> Numbers:
    distance = np.full(len(candidates), 2.0)
    for start in range(0, len(known), 1024):
        distance = np.minimum(distance, 1 - (candidates @ known[start : start + 1024].T).max(axis=1))
    chosen: list[int] = []
    for _ in range(min(count, len(candidates))):
        gain = np.where(distance > _SAME, distance * weights, -1)
        gain[chosen] = -1
        photo = int(gain.argmax())
        if gain[photo] < 0:
            break
        chosen.append(photo)
        distance = np.minimum(distance, 1 - candidates @ candidates[photo])
    return np.asarray(chosen, dtype=np.int64)
