from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
from scipy import stats

from aerofuse.metrics.statistics import mcnemar, mean_interval, paired_difference

difference = partial(paired_difference, confidence_level=0.95, resamples=2000, seed=0)
interval = partial(mean_interval, confidence_level=0.95, resamples=2000, seed=0)


def outcomes(both: int, only_a: int, only_b: int, neither: int) -> tuple[list[bool], list[bool]]:
    a = [True] * both + [True] * only_a + [False] * only_b + [False] * neither
    b = [True] * both + [False] * only_a + [True] * only_b + [False] * neither
    return a, b


def test_mcnemar_of_a_published_table() -> None:
    # Fay, "Exact McNemar's test and matching confidence intervals" (vignette of R's exact2x2): 21, 9, 2, 12
    result = mcnemar(*outcomes(both=21, only_a=9, only_b=2, neither=12))
    assert (result.only_a, result.only_b) == (9, 2)
    assert result.p_value == pytest.approx(0.06543, abs=5e-6)
    assert result.p_value == pytest.approx(2 * (1 + 11 + 55) / 2**11)  # P(X <= 2) of 11 tosses, on both sides


def test_mcnemar_without_any_disagreement() -> None:
    assert mcnemar(*outcomes(5, 0, 0, 3)).p_value == 1


def test_mcnemar_ignores_missing_labels() -> None:
    a, b = (np.array(side, dtype=float) for side in outcomes(21, 9, 2, 12))
    padded = [np.append(side, [math.nan] * 7) for side in (a, b)]
    assert mcnemar(*padded) == mcnemar(a, b)


def test_estimate_and_missing_labels() -> None:
    a, b = np.array([1.0, 0.0, 1.0, 1.0, math.nan]), np.array([0.0, 0.0, 1.0, 0.0, 1.0])
    result = paired_difference(a, b, confidence_level=0.9, resamples=500, seed=1)
    assert result.estimate == 0.5
    assert result == paired_difference(a[:4], b[:4], confidence_level=0.9, resamples=500, seed=1)
    assert result.low < 0.5 < result.high


def test_pairing_uses_that_the_images_are_the_same() -> None:
    generator = np.random.default_rng(0)
    difficulty = generator.random(400)
    a, b = difficulty + 0.01 * generator.standard_normal(400) - 0.01, difficulty
    assert difference(a, b).high < 0
    assert difference(a, generator.permutation(b)).high > 0


def test_the_interval_is_that_of_scipy() -> None:
    a, b = np.random.default_rng(3).random((2, 300))
    ours = paired_difference(a, b, confidence_level=0.95, resamples=20_000, seed=0)
    theirs = stats.bootstrap(
        (a - b,), np.mean, method="percentile", n_resamples=20_000, rng=np.random.default_rng(1)
    ).confidence_interval
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.002)  # of a width of about 0.09


def test_it_covers_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    covered = 0
    for trial in range(300):
        a = generator.random(200) < 0.8
        b = np.where(generator.random(200) < 0.3, generator.random(200) < 0.6, a)
        truth = 0.3 * (0.8 - 0.6)
        result = paired_difference(a, b, confidence_level=0.9, resamples=500, seed=trial)
        covered += result.low <= truth <= result.high
    assert 0.85 <= covered / 300 <= 0.95  # three standard errors of 300 trials are 0.05


def test_the_level_and_the_seed_matter_and_nothing_else_does() -> None:
    values = np.random.default_rng(0).random(100)
    wide = mean_interval(values, confidence_level=0.99, resamples=1000, seed=0)
    narrow = mean_interval(values, confidence_level=0.8, resamples=1000, seed=0)
    assert wide.low < narrow.low < values.mean() < narrow.high < wide.high
    assert narrow == mean_interval(values, confidence_level=0.8, resamples=1000, seed=0)
    assert narrow != mean_interval(values, confidence_level=0.8, resamples=1000, seed=1)


def test_resampling_in_portions_draws_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).random(64)
    whole = interval(values)
    monkeypatch.setattr("aerofuse.metrics.statistics._RESAMPLED_AT_ONCE", 64 * 30)
    assert interval(values) == whole


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot be paired"):
        difference([1, 0], [1, 0, 1])
    with pytest.raises(ValueError, match="no image has a label"):
        difference([math.nan], [1])
