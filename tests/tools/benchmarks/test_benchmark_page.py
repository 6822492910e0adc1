from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pandas as pd
import pytest

from aerofuse.backbones.families import FAMILIES
from tests.imports import ROOT
from tests.tools.benchmarks.samples import WAYS, results, row
from tools.benchmarks.goals import check_goals
from tools.benchmarks.page import main, picture_of, write_page
from tools.benchmarks.pictures import draw_frontiers, draw_kinds, draw_promises
from tools.benchmarks.results import FOLDER, HYBRID, MONET, QUICK_FOLDER
from tools.benchmarks.rows import AT_SWITCH, BASELINE, LEAST, PLANNED, SWITCH
from tools.benchmarks.subjects import middle_variant
from tools.benchmarks.tables import checkpointing_table, exactness_table, goals_table, planned_table, promised_range
from tools.readme import page_blocks, replace_blocks

pytestmark = pytest.mark.slow


def cells(table: str, first: str) -> list[str]:
    """The cells of the first row that begins with `first`."""
    line = next(line for line in table.splitlines() if line.startswith(f"| {first} "))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_what_was_promised_stands_beside_what_was_measured() -> None:
    found = cells(checkpointing_table(results().table), "resnet")
    assert found[:4] == ["resnet", "5", "`resnet50`", "30-40 %"]
    assert found[4:6] == ["78% / 1.22", "46% / 1.04"]
    assert found[-1] == f"8 to {round(8 / (0.18 * 0.9))}"
    assert promised_range("hybrid") == "-"


def test_what_differs_is_counted_by_kind() -> None:
    table = exactness_table(results().table)
    assert cells(table, "`resnet50`") == ["`resnet50`", "160", "106", "nothing", "nothing", "nothing", "104 buffers"]
    assert len(table.splitlines()) == 2 + len(FAMILIES)
    assert len(exactness_table(results(row("vit", BASELINE, "bf16")).table).splitlines()) == 2


def test_plans_stand_beside_timms_switch() -> None:
    found = cells(planned_table(results().table), "`resnet50`")
    assert found[1:4] == ["0.27 / 1.24", "1.10 (1.11)", "40%"]
    assert found[4:8] == ["1.05 (1.06)", "0.16 / 1.20 (1.21)", "1.2 points", "0.60"]
    assert found[8:] == ["within 0.1%", "within 0.0%"]


def test_tables_from_before_there_were_standard_errors_are_shown() -> None:
    older = results().table.drop(columns="time_ratio_error")
    assert cells(planned_table(older), "`resnet50`")[6:8] == ["-", "0.60"]


def test_a_plan_that_was_refused_leaves_a_gap() -> None:
    table = results(*(row("vit", way) for way in WAYS if way not in PLANNED)).table
    assert cells(planned_table(table), "`vit_base_patch16_224`")[2:] == ["-"] * 8
    assert cells(checkpointing_table(table), "vit")[-2:] == ["-", "-"]


def test_goals_say_what_was_found_and_where() -> None:
    missing = [row("vit", way) for way in WAYS if way != AT_SWITCH]
    table = goals_table(check_goals(results(*missing)))
    vit = cells(table, "extra time at timm's own peak, of timm's: ViT")
    assert vit[1:] == ["<= 100 %", "<= 90 %", "-", "0 of 1", "**fail**: vit_base_patch16_224"]
    planning = cells(table, "planning for the hybrid of base")
    assert planning[1:] == ["<= 5 s", "-", "4 s (hybrid of base)", "1 of 1", "pass"]
    assert cells(table, "tensors that a planned run changes")[-1] == "pass, aim reached"
    assert cells(table, "extra time at timm's own peak, of timm's")[-2:] == ["0 of 7", "not measured"]


@pytest.mark.parametrize("networks", [1, 10])
def test_pictures_are_small_and_the_same_each_time(networks: int, tmp_path: Path) -> None:
    found = results(*(row(family, way) for family in list(FAMILIES)[:networks] for way in WAYS))
    for name, draw in {"promises": draw_promises, "kinds": draw_kinds}.items():
        first, second = tmp_path / f"{name}.png", tmp_path / f"{name}-again.png"
        draw(found.table, first)
        draw(found.table, second)
        assert first.read_bytes() == second.read_bytes()
        assert 5_000 < first.stat().st_size < 150_000
    draw_frontiers(found.table, found.curves, tmp_path / "frontiers.png")
    assert 5_000 < (tmp_path / "frontiers.png").stat().st_size < 150_000
    # A network whose curve is not known, and a way that takes very long.
    slow = dataclasses.replace(row("vit", LEAST).times, time_ratio=3.3)  # type: ignore[type-var]
    table = results(*(row("vit", way) for way in (BASELINE, SWITCH)), row("vit", LEAST, times=slow)).table
    draw_frontiers(table, {}, tmp_path / "slow.png")


def test_there_must_be_something_to_draw(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no network whose steps were timed"):
        draw_frontiers(results(row("vit", BASELINE, "bf16")).table, {}, tmp_path / "none.png")


def test_the_page_stands_beside_its_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = results().path(FOLDER)
    results().save(path)
    main([])
    text = path.with_suffix(".md").read_text()
    assert all(f"`{middle_variant(family)}`" in text for family in FAMILIES)
    assert (
        "Imagined CPU, 2 threads, torch 2.13.0, 2026-11-22. Memory: batch 8, 224 px; times: batch 2, 3 rounds." in text
    )
    for name in ("frontiers", "promises", "kinds"):
        assert picture_of(path, name).is_file()
        assert f"(pictures/{path.stem}-{name}.png)" in text
    assert write_page(path) == path.with_suffix(".md")


def test_of_the_hybrid_nothing_was_promised(tmp_path: Path) -> None:
    hybrid = results(*(dataclasses.replace(row("convnext", way), family="hybrid", variant="hybrid") for way in WAYS))
    path = hybrid.path(tmp_path, HYBRID)
    hybrid.save(path)
    text = write_page(path).read_text()
    assert "promises" not in text
    assert cells(text, "hybrid")[3] == "-"


def test_the_pages_in_docs_show_full_runs_before_the_quick_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ignored = shutil.ignore_patterns("benchmarks", "any_network.*", "*.parquet")
    for name in ("docs", "reports"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
    shutil.copy(ROOT / "README.md", tmp_path)
    assert page_blocks()["docs/planner.md"] == page_blocks()["docs/checkpointing.md"] == {}
    results().save(results().path(QUICK_FOLDER))
    quick = page_blocks()
    assert f"From `{results().path(QUICK_FOLDER).as_posix()}`." in quick["docs/planner.md"]["planned"]
    results().save(results().path(FOLDER))
    line = {"share": 0.4, "published_time_ratio": 1.1, "time_ratio": 1.2, "predicted_time_ratio": 1.15}
    table = pd.DataFrame([line | {"peak_bytes": 98, "predicted_peak_bytes": 100}])
    table.to_csv(FOLDER / f"{results().machine.name(MONET)}.csv", index=False)
    pages = page_blocks()
    for page in ("docs/planner.md", "docs/checkpointing.md"):
        text = replace_blocks((tmp_path / page).read_text(), pages[page])
        assert "Not measured yet" not in text
        assert "quick" not in "".join(pages[page].values())
    frontiers = pages["docs/planner.md"]["frontiers"]
    assert frontiers.endswith(f"(../reports/benchmarks/pictures/{results().path(FOLDER).stem}-frontiers.png)")
    line_of_monet = pages["docs/planner.md"]["monet"].splitlines()[2]
    assert line_of_monet.replace(" ", "") == "|0.400|1.100|1.200|1.150|0.980|"
