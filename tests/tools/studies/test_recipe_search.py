from __future__ import annotations

import pytest

from aerofuse.common.params import read_params_file
from tools.studies.recipe_search import SearchOutcome, best_epoch, load_candidates, search_page

HISTORY = """epoch,score,type_top1,airline_top1,clarity_mae,block_mae
1,0.5,0.6,0.7,0.2,0.1
2,0.8,0.7,0.9,0.1,0.05
3,0.7,0.9,0.8,0.1,0.05
"""


def test_the_best_epoch_is_that_of_the_highest_score() -> None:
    assert best_epoch(HISTORY)["epoch"] == 2
    assert best_epoch(HISTORY)["type_top1"] == 0.7


def test_candidates_are_listed_by_the_mean_score_of_both_models() -> None:
    best, first = best_epoch(HISTORY), best_epoch("\n".join(HISTORY.splitlines()[:2]))
    outcomes = [
        SearchOutcome("worse", {"multi-task": first, "hybrid": first}),
        SearchOutcome("better", {"multi-task": best, "hybrid": first}),
    ]
    assert outcomes[1].score == pytest.approx(0.65)
    page = search_page(outcomes, [0, 1])
    assert page.index("better") < page.index("worse")
    assert "0.6500" in page
    assert "70.00 %" in page


@pytest.mark.parametrize("settings", load_candidates().values(), ids=load_candidates())
def test_candidates_change_what_params_yaml_has(settings: dict[str, object]) -> None:
    for name in settings:
        value = read_params_file()
        for part in name.split("."):
            value = value[part]
        assert value is not None, name
