"""The first stage: what no schema can see is refused, too, before anything runs."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from aerofuse.common.params import PARAMS_FILE, read_params_file
from stages.check_params import check_params

REAL = PARAMS_FILE.absolute()


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The real parameters, for a stage that is run in an empty folder; `check` writes them there first."""
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    return read_params_file(REAL)


def check(params: dict[str, Any]) -> None:
    with PARAMS_FILE.open("w", encoding="utf-8") as file:
        YAML().dump(params, file)
    check_params()


@pytest.mark.parametrize("budget", ["auto", "12 GiB", "500MB", 0.5, 1.0, 6 * 2**30])
def test_budgets_that_can_be_read(budget: object, params: dict[str, Any]) -> None:
    params["recipes"]["base"]["training"]["gradient_checkpointing"] = {"policy": "budget", "budget": budget}
    check(params)
    assert Path("data/params_checked").is_file()


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        ("automatic", "'automatic' is no size in memory; write a number and one of B, kB"),
        ("12", "'12' is no size in memory"),
        ("12 parsecs", "'12 parsecs' is no size in memory"),
        (1.5, "a share from 0 to 1 such as 0.5, not 1.5"),
        (0, "not 0"),
        (-5, "not -5"),
    ],
)
def test_a_budget_that_is_none_is_refused_by_name(budget: object, message: str, params: dict[str, Any]) -> None:
    # Not the active recipe.
    params["recipes"]["base"]["training"]["gradient_checkpointing"] = {"policy": "budget", "budget": budget}
    with pytest.raises(ValueError, match="cannot be used") as raised:
        check(params)
    assert "recipes.base.training.gradient_checkpointing.budget: " in str(raised.value)
    assert message in str(raised.value)
    assert str(raised.value).endswith("; or write auto")
    assert not Path("data/params_checked").exists()


@pytest.mark.parametrize(
    ("written", "meant"), [("~/photos", f"{Path.home()}/photos"), (2024, "2024"), (date(2024, 5, 1), "2024-05-01")]
)
@pytest.mark.parametrize("name", ["root", "labels"])
def test_a_path_that_dvc_would_not_find_is_refused(
    name: str, written: object, meant: str, params: dict[str, Any]
) -> None:
    params["data"][name] = written
    with pytest.raises(ValueError, match=re.escape(f"data.{name}: {written!r} is no path for DVC")) as raised:
        check(params)
    assert f'write "{meant}", with the quotes' in str(raised.value)
    params["data"][name] = meant
    check(params)


def test_a_budget_of_all_recipes_is_refused_where_it_stands(params: dict[str, Any]) -> None:
    params["training"]["gradient_checkpointing"] |= {"policy": "budget", "budget": "automatic"}
    with pytest.raises(ValueError, match=r"used:\n  training.gradient_checkpointing.budget: 'automatic' is no size"):
        check(params)


def test_more_segments_than_units_are_refused(params: dict[str, Any]) -> None:
    params["recipes"]["quick"]["training"]["gradient_checkpointing"] = {"policy": "segments", "segments": 1000}
    with pytest.raises(ValueError, match="1000"):
        check(params)


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "No such file"), ("{}", "is no plan that CheckpointingPlan.save wrote, or one of an")],
)
def test_a_plan_that_cannot_be_read_is_refused(content: str | None, message: str, params: dict[str, Any]) -> None:
    if content is not None:
        Path("plan.json").write_text(content)
    params["recipes"]["base"]["training"]["gradient_checkpointing"] = {"policy": "plan", "plan": "plan.json"}
    with pytest.raises(ValueError, match="cannot be used") as raised:
        check(params)
    assert "recipes.base.training.gradient_checkpointing.plan: " in str(raised.value)
    assert message in str(raised.value)
    assert str(raised.value).endswith("; save one there, or choose another policy")
