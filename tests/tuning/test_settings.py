from __future__ import annotations

import re

import optuna
import pytest

from aerofuse.tuning.settings import Setting, check_settings
from tests.imports import ROOT


@pytest.fixture(autouse=True)
def _with_the_real_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def test_commas_divide_choices_and_none_in_brackets() -> None:
    assert Setting.parse("seed", "0, 3,0").choices == ("0", "3")
    policies = Setting.parse("training.gradient_checkpointing", "{policy: none},{policy: budget, budget: 64 MiB}")
    assert policies.choices == ("{policy: none}", "{policy: budget, budget: 64 MiB}")


@pytest.mark.parametrize(
    ("values", "low", "high", "kind"),
    [("1..4", 1, 4, int), ("0.1..0.5", 0.1, 0.5, float), ("1e-5..1e-2:log", 1e-5, 1e-2, float)],
)
def test_a_range_is_drawn_from(values: str, low: float, high: float, kind: type) -> None:
    setting = Setting.parse("a", values)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = [kind(setting.draw(study.ask())) for _ in range(20)]
    assert low <= min(drawn) < max(drawn) <= high
    if setting.is_logarithmic:
        assert sorted(drawn)[10] < 1e-3, "half of them lie below the middle of the logarithms"


@pytest.mark.parametrize("values", ["4..1", "1..1", "a..b", "0..1:log", "1,,2", "{a: 1", ","])
def test_values_that_cannot_be_read_are_refused(values: str) -> None:
    with pytest.raises(ValueError, match="a="):
        Setting.parse("a", values)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("fusion_method", "concat,bogus", "'bogus' is not allowed"),
        ("seed", "0,-1", "-1 is not allowed"),
        ("seeed", "0,1", "has no seeed; did you mean seed?"),
        ("recipes.quick.train_stage_c.epoch", "1,2", "did you mean recipes.quick.train_stage_c.epochs?"),
        ("recipes.quick.train_stage_c.learning_rate", "-1.0..1.0", "learning_rate"),
        ("recipes.base.train_stage_c.epochs", "1,2", "changes nothing: params.yaml has recipe: quick"),
    ],
)
def test_what_the_pipeline_would_refuse_is_refused_before_it_runs(name: str, values: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        check_settings([Setting.parse(name, values)])


def test_what_the_pipeline_takes_is_taken() -> None:
    check_settings(
        [
            Setting.parse("fusion_method", "concat,add"),
            Setting.parse("recipes.quick.train_stage_c.learning_rate", "1e-5..1e-3:log"),
            Setting.parse("training.gradient_checkpointing", "{policy: none},{policy: budget, budget: 64 MiB}"),
        ]
    )
