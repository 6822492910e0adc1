from __future__ import annotations

import numpy as np
import pytest

from aerofuse.review.teaching import choose_lessons
from tests.review.clusters import clusters


def test_photos_between_types_come_before_plain_ones() -> None:
    features, types = clusters(20)
    between = (features[:20] + features[20:40]) / 2
    unlabelled = np.concatenate([features[:5] + 0.01, between[:2]])
    lessons = choose_lessons(features, types, unlabelled, 2)
    assert {lesson.photo for lesson in lessons} == {5, 6}
    assert {lessons[0].likely, lessons[0].runner_up} == {"A", "B"}
    assert 0.3 < lessons[0].probability <= 1


def test_of_copies_one_is_chosen() -> None:
    features, types = clusters(20)
    between = (features[:1] + features[20:21]) / 2
    lessons = choose_lessons(features, types, np.repeat(between, 4, axis=0), 3)
    assert [lesson.photo for lesson in lessons] == [0]


def test_there_may_be_fewer_than_are_asked_for() -> None:
    features, types = clusters(20)
    other, _ = clusters(1, seed=9)
    assert len(choose_lessons(features, types, other, 50)) == 3


def test_one_type_teaches_nothing() -> None:
    features, _ = clusters(2)
    with pytest.raises(ValueError, match="have 1 type"):
        choose_lessons(features, ["A"] * 6, features, 1)
