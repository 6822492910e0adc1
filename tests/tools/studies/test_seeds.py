from __future__ import annotations

import pytest

from tools.chinese import chinese_tables
from tools.studies.seeds import SeedResult, read_result, seeds_page, summarise

METRICS = {
    "metrics/evaluate/multi_task.json": {"multi_task": {"type_top1": 0.80, "clarity_mae": 0.11, "type_ece": 0.02}},
    "metrics/evaluate/hybrid.json": {"hybrid": {"type_top1": 0.83, "clarity_mae": 0.10}},
    "metrics/compare.json": {"compare": {"gain_type_top1": 0.03, "gain_low": 0.01, "gain_high": 0.05}},
}


def test_a_result_is_read_from_what_dvc_shows() -> None:
    assert read_result(4, METRICS) == SeedResult(
        4, {"type_top1": 0.80, "clarity_mae": 0.11}, {"type_top1": 0.83, "clarity_mae": 0.10}, 0.03, 0.01, 0.05
    )


def test_the_interval_is_students_over_seeds() -> None:
    """Gains 1, 2, 3: mean 2, standard error 1 / sqrt(3), and t(0.975, 2) = 4.3027."""
    results = [SeedResult(seed, {}, {}, gain, 0.0, 0.0) for seed, gain in enumerate((0.01, 0.02, 0.03))]
    summary = summarise(results)
    assert summary.mean_gain == pytest.approx(0.02)
    assert summary.high - summary.mean_gain == pytest.approx(0.01 * 4.30265 / 3**0.5, rel=1e-4)
    assert summary.mean_gain - summary.low == pytest.approx(summary.high - summary.mean_gain)


def test_one_seed_gives_no_interval() -> None:
    with pytest.raises(ValueError, match="two or more"):
        summarise([read_result(0, METRICS)])


def test_the_page_shows_every_seed_the_mean_and_the_metrics() -> None:
    page = seeds_page(summarise([read_result(0, METRICS), read_result(1, METRICS)]))
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines()]
    assert [row[1:] for row in cells if row[:1] in (["0"], ["1"])] == [
        ["80.00 %", "83.00 %", "+3.00", "+1.00 to +5.00"]
    ] * 2
    assert "Mean gain +3.00 points" in page
    assert ["clarity MAE", "0.1100 ± 0.0000", "0.1000 ± 0.0000"] in cells
    assert ["airline top-1", "-", "-"] in cells  # the data has no airlines


def test_the_chinese_page_has_a_word_for_every_heading() -> None:
    page = seeds_page(summarise([read_result(0, METRICS), read_result(1, METRICS)]))
    assert len(chinese_tables(page)) == 2
