"""How likely each given label is, by classifiers that have not seen the photo or its copies, and what is like it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer
from tqdm import tqdm

from aerofuse.review.frozen_features import FloatArray

Numbers = npt.NDArray[np.int64]

_FOLDS = 5
_SHRINKAGE = 0.3  # of the covariance, towards a multiple of the identity
_LEAST_GROUPS = 2  # a type with fewer airframes or pictures is never seen by the fold that judges it


@dataclass(frozen=True, eq=False)
class Judgement:
    """Probabilities `[N, C]` of the types `classes` for photos whose `given` labels `[N]` count through `classes`.

    `is_judged` `[N]` says which photos have a meaningful row: their type was among those that the classifier learned.
    """

    classes: tuple[str, ...]
    given: Numbers
    probabilities: FloatArray
    is_judged: npt.NDArray[np.bool_]

    @property
    def given_probability(self) -> FloatArray:
        """Return the probability of each given label `[N]`: low where the label looks wrong."""
        return np.asarray(self.probabilities[np.arange(len(self.given)), self.given])

    @property
    def likely(self) -> Numbers:
        """Return the likeliest type of each photo that is not the given one `[N]`."""
        others = self.probabilities.copy()
        others[np.arange(len(self.given)), self.given] = -1
        return np.asarray(others.argmax(axis=1), dtype=np.int64)


def flatten_scale(features: FloatArray) -> FloatArray:
    """Return signed square roots, so that a few large features do not decide alone (Perronnin and others, 2010)."""
    return np.sign(features) * np.sqrt(np.abs(features))


def make_classifier() -> Pipeline:
    """Return the classifier over features: a linear discriminant analysis with a shrunken covariance, of their roots.

    A few wrong labels hardly move class means and one covariance; `reports/review.md` compares it with others.
    """
    analysis = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=_SHRINKAGE)
    return make_pipeline(FunctionTransformer(flatten_scale), analysis)


def judge(
    features: FloatArray,
    types: Sequence[str],
    groups: Numbers,
    seed: int = 0,
    classifier: Callable[[], Pipeline] = make_classifier,
) -> Judgement:
    """Judge every label by a classifier trained on the other folds; photos of one group are in one fold.

    `features` are `[N, D]`, as the network found them. Raises `ValueError` where fewer than two types can be judged.
    """
    classes, given = np.unique(np.asarray(types, dtype=str), return_inverse=True)
    groups_of = np.asarray([len(np.unique(groups[given == number])) for number in range(len(classes))])
    usable = np.flatnonzero((groups_of >= _LEAST_GROUPS)[given])
    if len(np.unique(given[usable])) < 2:
        raise ValueError(
            f"{len(np.unique(given[usable]))} of {len(classes)} types have two airframes or pictures that differ; "
            "at least two such types are needed to judge labels"
        )
    folds = StratifiedGroupKFold(min(_FOLDS, int(groups_of.max())), shuffle=True, random_state=seed)
    probabilities = np.zeros((len(given), len(classes)), dtype=np.float32)
    is_judged = np.zeros(len(given), dtype=bool)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class")
        parts = list(folds.split(features[usable], given[usable], groups[usable]))
    for learned, judged in tqdm(parts, desc="folds judged", unit="fold", disable=None):
        train, test = usable[learned], usable[judged]
        if len(np.unique(given[train])) < 2 or not len(test):
            continue
        learner = classifier().fit(features[train], given[train])
        probabilities[np.ix_(test, learner.classes_)] = learner.predict_proba(features[test])
        is_judged[test] = np.isin(given[test], learner.classes_)
    return Judgement(tuple(map(str, classes)), given.astype(np.int64), probabilities, is_judged)


def rank_suspects(judgement: Judgement) -> Numbers:
    """Return the numbers of all judged photos, the most suspicious first: by the probability of the given label."""
    judged = np.flatnonzero(judgement.is_judged)
    return judged[np.argsort(judgement.given_probability[judged], kind="stable")]


def confidently_wrong(judgement: Judgement) -> npt.NDArray[np.bool_]:
    """Return which labels confident learning calls wrong `[N]` (Northcutt and others, 2021, arXiv 1911.00068).

    A type's threshold is its mean probability over the photos labelled so. A label is wrong where, of the types that
    reach their thresholds, another one is likeliest.
    """
    judged, given = judgement.is_judged, judgement.given
    thresholds = np.full(len(judgement.classes), np.inf)
    for number in np.unique(given[judged]):
        thresholds[number] = judgement.given_probability[judged & (given == number)].mean()
    reached = np.where(judgement.probabilities >= thresholds, judgement.probabilities, -1)
    is_wrong = judged & (reached.max(axis=1) >= 0) & (reached.argmax(axis=1) != given)
    return np.asarray(is_wrong, dtype=np.bool_)


def nearest(features: FloatArray, photos: Numbers, count: int) -> Numbers:
    """Return for each of `photos` the `count` most like it among all, without itself: `[len(photos), count]`.

    Likeness is the cosine between features from which the mean was taken.
    """
    directions = unit_directions(features)
    found = np.empty((len(photos), min(count, len(features) - 1)), dtype=np.int64)
    for row, photo in enumerate(photos):
        likeness = directions @ directions[photo]
        likeness[photo] = -np.inf
        found[row] = np.argsort(-likeness, kind="stable")[: found.shape[1]]
    return found


def unit_directions(features: FloatArray) -> FloatArray:
    """Return features `[N, D]` as vectors of length 1 around their mean."""
    flat = flatten_scale(features)
    centred = flat - flat.mean(axis=0)
    lengths = np.linalg.norm(centred, axis=1, keepdims=True)
    return np.asarray(centred / np.maximum(lengths, 1e-12), dtype=np.float32)
