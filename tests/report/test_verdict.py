from __future__ import annotations

import dataclasses

from aerofuse.comparison.comparison import compare_models
from aerofuse.report.verdict import gain_sentence, headline, leads
from tests.metrics import samples
from tests.report.page_sources import SETTINGS


def test_a_clear_lead_and_a_tie() -> None:
    """Single-task takes 18 of 120 types wrong, multi-task 12, and the hybrid none; all name every airline right."""
    comparison = compare_models(samples.results(hybrid_wrong=0), SETTINGS)
    found = {lead.metric: lead for lead in leads(comparison)}
    assert list(found) == ["type_top1", "airline_top1", "clarity_mae", "block_mae"]
    best = found["type_top1"]
    assert (best.model, best.value, best.clear) == ("hybrid", "100.00 %", True)
    assert best.ahead_of[0].startswith("+15.00 points [+")
    assert best.ahead_of[0].endswith("over single-task")
    assert best.ahead_of[1].startswith("+10.00 points [+")
    assert not found["airline_top1"].clear
    assert found["airline_top1"].ahead_of == ("+0.00 points [+0.00, +0.00] over hybrid",)
    assert headline(comparison) == (
        "The hybrid model is best at type, clarity and block. At airline these test images do not tell the best models "
        "apart."
    )


def test_smaller_errors_are_better() -> None:
    found = {lead.metric: lead for lead in leads(compare_models(samples.results(), SETTINGS))}
    assert found["clarity_mae"].model == "hybrid"
    assert found["clarity_mae"].ahead_of == ("+0.0500 [+0.0500, +0.0500] over multi-task",)
    results = samples.results()
    swapped = results | {"hybrid": results["multi_task"], "multi_task": results["hybrid"]}
    swapped["hybrid"] = dataclasses.replace(swapped["hybrid"], training=results["hybrid"].training)
    found = {lead.metric: lead for lead in leads(compare_models(swapped, SETTINGS))}
    assert found["clarity_mae"].model == "multi_task"
    assert found["clarity_mae"].ahead_of == ("+0.0500 [+0.0500, +0.0500] over hybrid",)


def test_an_interval_that_contains_zero_is_no_lead() -> None:
    found = {lead.metric: lead for lead in leads(compare_models(samples.results(hybrid_wrong=11), SETTINGS))}
    assert found["type_top1"].model == "hybrid"
    assert not found["type_top1"].clear


def test_the_gain_is_told_as_it_is() -> None:
    worse = gain_sentence(compare_models(samples.results(hybrid_wrong=13), SETTINGS))
    assert "baseline: -0.83 points, 95 % interval" in worse
    assert worse.endswith("The goal of at least 1 point is not reached.")
    better = gain_sentence(compare_models(samples.results(hybrid_wrong=0), SETTINGS))
    assert "+10.00 points" in better
    assert better.endswith("is reached.")
