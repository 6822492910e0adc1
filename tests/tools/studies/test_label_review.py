from __future__ import annotations

import numpy as np
import pytest

from tests.review.clusters import clusters
from tools.studies.label_review import (
    CLASSIFIERS,
    USED,
    Found,
    Taught,
    measure_lessons,
    measure_suspects,
    plant_wrong,
    review_page,
)


def test_one_label_of_twenty_becomes_another_type() -> None:
    types = ["A", "B", "C"] * 20
    planted, is_wrong = plant_wrong(types, seed=1)
    assert is_wrong.sum() == 3
    assert [a != b for a, b in zip(types, planted, strict=True)] == is_wrong.tolist()
    assert set(planted) == {"A", "B", "C"}
    assert plant_wrong(types, seed=1)[0] == planted


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_every_classifier_finds_what_is_easy(name: str) -> None:
    features, types = clusters(40)
    found = measure_suspects(features, types, np.arange(120), 0, CLASSIFIERS[name])
    assert found.precision == 1
    assert found.accuracy > 0.95
    assert found.called_recall == 1


def test_lessons_are_measured_on_other_photos() -> None:
    features, types = clusters(40)
    taught = measure_lessons(features, types, np.arange(120), 0)
    assert 0.5 < taught.before <= 1
    assert 0.5 < taught.chosen <= 1


def test_the_page_says_whether_the_goal_is_reached() -> None:
    def page(precision: float) -> str:
        found = {USED: [Found(3, precision, 0.8, 120, 0.5, 0.9)]}
        return review_page(found, [Taught(3, 0.5, 0.7, 0.6)], "a network, 224 px", 2000, "my photos")

    assert "it is reached:\n**0.700**" in page(0.7)
    assert "it is not reached:\n**0.500**" in page(0.5)
    assert "2000 photos: my photos." in page(0.7)
    assert "| 3 " in page(0.7)
