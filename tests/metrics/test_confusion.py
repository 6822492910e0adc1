from __future__ import annotations

import numpy as np
import pytest

from aerofuse.metrics.confusion import confused_pairs, confusion_counts
from tests.metrics import samples


def test_confusion_counts_are_those_of_scikit_learn() -> None:
    sklearn_metrics = pytest.importorskip("sklearn.metrics")
    table = samples.results()["hybrid"].predictions
    table.loc[:2, "type"] = None
    known = table[3:]
    expected = sklearn_metrics.confusion_matrix(known["type"], known["type_predicted"], labels=samples.TYPES)
    counts = confusion_counts(table, samples.TYPES)
    np.testing.assert_array_equal(counts, expected)
    assert counts.sum() == samples.IMAGES - 3


def test_confused_pairs_count_both_directions() -> None:
    table = samples.results()["hybrid"].predictions
    pairs = confused_pairs(table).rows
    wrong = int((table["type"] != table["type_predicted"]).sum())
    assert sum(int(pair[2]) for pair in pairs) == wrong
    assert [int(pair[2]) for pair in pairs] == sorted((int(pair[2]) for pair in pairs), reverse=True)
