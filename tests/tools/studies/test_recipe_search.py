from __future__ import annotations

import json
from pathlib import Path

import pytest

from aerofuse.common.params import read_params_file
from tools.studies import recipe_search
from tools.studies.recipe_search import best_epoch, load_candidates, main, mean_score, search_page

HISTORY = """epoch,score,type_top1,airline_top1,clarity_mae,block_mae
1,0.5,0.6,0.7,0.2,0.1
2,0.8,0.7,0.9,0.1,0.05
3,0.7,0.9,0.8,0.1,0.05
"""
BEST, FIRST = best_epoch(HISTORY), best_epoch("\n".join(HISTORY.splitlines()[:2]))


def test_the_best_epoch_is_that_of_the_highest_score() -> None:
    assert (BEST["score"], BEST["type_top1"]) == (0.8, 0.7)


def test_candidates_are_listed_by_seeds_and_then_by_the_mean_score_of_both_models() -> None:
    worse = {"multi-task": FIRST, "hybrid, phase A": BEST, "hybrid": FIRST}
    better = {"multi-task": BEST, "hybrid, phase A": FIRST, "hybrid": FIRST}
    assert mean_score({"0": better}) == pytest.approx(0.65)
    assert mean_score({"0": better, "1": worse}) == pytest.approx(0.575)
    page = search_page({"worse": {"0": worse}, "better": {"0": better}, "surer": {"0": worse, "1": worse}})
    assert page.index("surer") < page.index("better") < page.index("worse")
    assert "0.6500" in page
    assert "70.00 %" in page
    assert "0, 1" in page


def test_a_second_run_adds_to_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = tmp_path / "search.json"
    monkeypatch.setattr(recipe_search, "RESULT", result)
    monkeypatch.setattr(recipe_search, "run_experiment", lambda name, settings, targets: name)
    monkeypatch.setattr(recipe_search, "git", lambda *arguments: HISTORY)
    main(["--candidates", "as it was", "--seeds", "0"])
    main(["--candidates", "as it was", "--seeds", "1", "--add"])
    assert json.loads(result.read_text())["as it was"] == {
        seed: dict.fromkeys(recipe_search.TRAINED, BEST) for seed in "01"
    }
    main(["--candidates", "as it was", "--seeds", "2"])
    assert list(json.loads(result.read_text())["as it was"]) == ["2"]
    assert "as it was" in result.with_suffix(".md").read_text()


@pytest.mark.parametrize("settings", load_candidates().values(), ids=load_candidates())
def test_candidates_change_what_params_yaml_has(settings: dict[str, object]) -> None:
    for name in settings:
        value = read_params_file()
        for part in name.split("."):
            value = value[part]
        assert value is not None, name
