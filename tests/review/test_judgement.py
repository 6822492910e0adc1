from __future__ import annotations

import numpy as np
import pytest

from aerofuse.review.judgement import Judgement, confidently_wrong, flatten_scale, judge, nearest, rank_suspects
from tests.review.clusters import clusters


def test_planted_labels_come_first() -> None:
    features, types = clusters(40)
    types[3], types[50], types[90] = "B", "C", "A"
    judgement = judge(features, types, np.arange(120))
    assert set(rank_suspects(judgement)[:3]) == {3, 50, 90}
    assert [judgement.classes[judgement.likely[photo]] for photo in (3, 50, 90)] == ["A", "B", "C"]
    assert np.flatnonzero(confidently_wrong(judgement)).tolist() == [3, 50, 90]


def test_the_same_seed_gives_the_same_judgement() -> None:
    features, types = clusters(20)
    first, again = (judge(features, types, np.arange(60), seed=4) for _ in range(2))
    assert np.array_equal(first.probabilities, again.probabilities)


def test_copies_do_not_vouch_for_each_other() -> None:
    """A picture that is there five times with a wrong label is suspicious each time."""
    features, types = clusters(40)
    features[:5], types[:5] = features[0], ["B"] * 5
    groups = np.arange(120)
    groups[:5] = 0
    assert set(rank_suspects(judge(features, types, groups))[:5]) == set(range(5))


def test_a_type_with_one_group_is_not_judged() -> None:
    features, types = clusters(10)
    groups = np.arange(30)
    groups[20:] = 20
    judgement = judge(features, types, groups)
    assert judgement.is_judged.tolist() == [True] * 20 + [False] * 10
    assert set(rank_suspects(judgement)) == set(range(20))
    assert not confidently_wrong(judgement)[20:].any()


def test_one_type_alone_is_refused() -> None:
    features, _ = clusters(4)
    with pytest.raises(ValueError, match=r"1 of 1 types .* at least two such types"):
        judge(features, ["A"] * 12, np.arange(12))


def test_confident_learning_compares_with_each_types_own_threshold() -> None:
    given = np.array([0, 0, 1, 1])
    probabilities = np.array([[0.9, 0.1], [0.4, 0.6], [0.45, 0.55], [0.1, 0.9]], dtype=np.float32)
    judgement = Judgement(("A", "B"), given, probabilities, np.ones(4, dtype=bool))
    # The thresholds are 0.65 and 0.725: 0.6 for B is not enough.
    assert not confidently_wrong(judgement).any()
    sure = Judgement(
        ("A", "B"), given, np.vstack([probabilities[0], [[0.2, 0.8]], probabilities[2:]]), np.ones(4, bool)
    )
    assert confidently_wrong(sure).tolist() == [False, True, False, False]


def test_the_nearest_are_of_the_same_kind_and_not_the_photo_itself() -> None:
    features, types = clusters(10)
    found = nearest(features, np.array([0, 15]), 4)
    assert found.shape == (2, 4)
    assert 0 not in found[0]
    assert {types[photo] for photo in found[1]} == {"B"}


def test_roots_keep_the_sign() -> None:
    assert flatten_scale(np.array([-4.0, 0.0, 9.0], dtype=np.float32)).tolist() == [-2.0, 0.0, 3.0]
