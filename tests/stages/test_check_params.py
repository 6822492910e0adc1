"""The first stage: what no schema can see is refused, too, before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from aerofuse.common.params import PARAMS_FILE, read_params_file
from aerofuse.ingest.inputs import INPUTS, NAMES
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
        ("automatic", "'automatic' is no size; write a number and one of B, kB"),
        ("12", "'12' is no size"),
        ("12 parsecs", "'12 parsecs' is no size"),
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


def test_dvc_finds_photos_and_tables_by_links(params: dict[str, Any], tmp_path: Path) -> None:
    check(params)  # drawn photos need neither
    assert {path.readlink() for path in INPUTS.iterdir()} == {Path("../params_checked")}
    for name in ("a", "b", "labels.csv"):
        (tmp_path / name).mkdir()
    params["data"] |= {"source": "table", "root": {"train": "a", "test": str(tmp_path / "b")}, "labels": "labels.csv"}
    for _ in range(2):
        check(params)
        links = {path.name: path.readlink() for path in INPUTS.iterdir()}
        assert links == dict.fromkeys(NAMES, Path("../params_checked")) | {
            "root_1": Path("../../a"),
            "root_2": tmp_path / "b",
            "labels_1": Path("../../labels.csv"),
        }


def test_photos_that_are_nowhere_are_named_with_their_parameter(params: dict[str, Any]) -> None:
    params["data"] |= {"source": "table", "root": {"train": ".", "test": "nowhere"}}
    with pytest.raises(FileNotFoundError, match=r"data\.root\.test is 'nowhere': no such file or folder"):
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
