from __future__ import annotations

from typing import Any

from aerofuse.reporting.wording import MODELS
from aerofuse.studies.experiments import read_shown
from aerofuse.studies.initialisation import initialisation_page


def _revision(value: float) -> dict[str, Any]:
    return {"rev": "abc", "data": {"metrics": {"metrics/a.json": {"data": {"score": value}}, "metrics/b.json": {}}}}


def test_metrics_are_found_by_the_name_of_the_experiment() -> None:
    rows = [
        {**_revision(0.1), "rev": "workspace", "experiments": None},
        {
            **_revision(0.2),
            "experiments": [
                {"name": "seed-1", "revs": [_revision(0.3)]},
                {"name": "failed", "revs": [{"rev": "x", "data": None}]},
            ],
        },
    ]
    assert read_shown(rows) == {
        "workspace": {"metrics/a.json": {"score": 0.1}},
        "seed-1": {"metrics/a.json": {"score": 0.3}},
        "failed": {},
    }


def test_every_model_stands_with_both_weights() -> None:
    def metrics(top1: float) -> dict[str, dict[str, Any]]:
        return {f"metrics/evaluate/{model}.json": {model: {"type_top1": top1}} for model in MODELS}

    page = initialisation_page(metrics(0.9), metrics(0.4), list(MODELS))
    assert page.count("90.00 %") == page.count("40.00 %") == len(MODELS)
