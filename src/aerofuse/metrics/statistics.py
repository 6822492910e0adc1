"""Confidence intervals and tests for models that were evaluated on the same test images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest, bootstrap

Values = npt.NDArray[np.float64]

_RESAMPLED_AT_ONCE = 4_000_000  # bounds memory, at 8 bytes each


@dataclass(frozen=True)
class Interval:
    """A confidence interval, in the unit of its values."""

    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """The mean of a minus the mean of b, with its confidence interval."""

    estimate: float
    low: float
    high: float


@dataclass(frozen=True)
class McNemar:
    """How many images only one of two classifiers had right, and the two-sided p-value of equally good ones."""

    only_a: int
    only_b: int
    p_value: float


def mean_interval(values: npt.ArrayLike, *, confidence_level: float, resamples: int, seed: int) -> Interval:
    """Return the percentile bootstrap interval of the mean of `values` `[N]`; NaN (missing) is ignored.

    Efron, "Bootstrap methods: another look at the jackknife", Annals of Statistics 7 (1979).
    Raises `ValueError` where no value is left.
    """
    known = np.asarray(values, dtype=np.float64)
    known = known[~np.isnan(known)]
    if not len(known):
        raise ValueError("no image has a label: there is nothing to resample")
    if len(known) == 1:  # scipy refuses a single value, and every resample of it is the value itself
        return Interval(float(known[0]), float(known[0]))
    found = bootstrap(
        (known,),
        np.mean,
        n_resamples=resamples,
        batch=max(1, _RESAMPLED_AT_ONCE // len(known)),
        confidence_level=confidence_level,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(float(found.low), float(found.high))


def paired_difference(
    values_a: npt.ArrayLike, values_b: npt.ArrayLike, *, confidence_level: float, resamples: int, seed: int
) -> Difference:
    """Return the mean of a minus the mean of b, with the interval over resampled images, the same for both models.

    The values `[N]` are per image and in the same order: correct or not, or an absolute error; NaN where the
    label is missing. The same arguments give the same interval. Raises `ValueError` for different lengths and
    where no image is left.
    """
    a, b = _pairs(values_a, values_b)
    differences = a - b
    interval = mean_interval(differences, confidence_level=confidence_level, resamples=resamples, seed=seed)
    return Difference(float(differences.mean()), interval.low, interval.high)


def mcnemar(correct_a: npt.ArrayLike, correct_b: npt.ArrayLike) -> McNemar:
    """Return the exact McNemar test of two classifiers on the same images.

    `correct_*` `[N]` say whether each answer was right, NaN where the label is missing. Only images that one of the
    two had right count: equally good models have each of them with probability 1/2. Without such an image p is 1.
    McNemar, "Note on the sampling error of the difference between correlated proportions", Psychometrika 12 (1947).
    Raises `ValueError` for different lengths.
    """
    a, b = _pairs(correct_a, correct_b)
    only_a, only_b = int(np.sum(a > b)), int(np.sum(b > a))
    if only_a + only_b == 0:
        return McNemar(0, 0, 1.0)
    return McNemar(only_a, only_b, float(binomtest(only_a, only_a + only_b, 0.5).pvalue))


def _pairs(values_a: npt.ArrayLike, values_b: npt.ArrayLike) -> tuple[Values, Values]:
    a, b = np.asarray(values_a, dtype=np.float64), np.asarray(values_b, dtype=np.float64)
    if a.shape != b.shape:
        raise ValueError(f"{a.shape} and {b.shape} values cannot be paired; both must be of the same images")
    known = ~np.isnan(a) & ~np.isnan(b)
    return a[known], b[known]
