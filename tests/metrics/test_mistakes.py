from __future__ import annotations

import numpy as np
import pytest

from aerofuse.metrics.predictions import worst_mistakes
from tests.metrics import samples


def test_wrong_types_come_with_the_surest_first() -> None:
    table = samples.results()["multi_task"].predictions
    table["type_confidence"] = np.linspace(0.2, 0.9, len(table), dtype=np.float32)
    table.loc[11, "type"] = None
    worst = worst_mistakes(table, 4)["type"]
    # The first 12 are wrong, and the last of them has no label any more.
    assert list(worst.index) == [10, 9, 8, 7]
    assert (worst["type"] != worst["type_predicted"]).all()
    assert len(worst_mistakes(table, 50)["type"]) == 11


def test_errors_of_values_come_with_the_largest_first_whatever_their_sign() -> None:
    table = samples.results()["hybrid"].predictions
    table["clarity_predicted"] = table["clarity"] + 0.01
    table.loc[[5, 50], "clarity_predicted"] = table.loc[[5, 50], "clarity"] + [-0.4, 0.3]
    table.loc[7, ["clarity", "clarity_predicted"]] = [np.nan, 1.0]
    worst = worst_mistakes(table, 2)["clarity"]
    assert list(worst.index) == [5, 50]
    assert list(worst["error"]) == pytest.approx([-0.4, 0.3], abs=1e-6)


def test_no_mistakes_and_no_heads() -> None:
    table = samples.results(hybrid_wrong=0)["hybrid"].predictions
    assert worst_mistakes(table, 3)["type"].empty
    assert worst_mistakes(table, 0)["block"].empty
    table[["clarity", "block"]] = np.nan
    assert worst_mistakes(table, 3)["clarity"].empty
    assert list(worst_mistakes(samples.results()["single_task"].predictions, 3)) == ["type"]
