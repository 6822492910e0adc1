"""The photos that a model is most wrong about."""

from __future__ import annotations

import pandas as pd

from aerofuse.data.labels import REGRESSION_TASKS


def worst_mistakes(predictions: pd.DataFrame, count: int) -> dict[str, pd.DataFrame]:
    """The rows of the worst mistakes for each of type, clarity and block that is predicted, the worst first.

    `predictions` is a table of `aerofuse.metrics.predictions`. Types: those that are wrong with the highest
    confidence. Clarity and block: the largest errors, given in a column `error`. At most `count` of each; photos
    without the label are left out, and of equally bad ones the earlier come first.
    """
    worst = {}
    if "type" in predictions:
        wrong = predictions[predictions["type"].notna() & (predictions["type"] != predictions["type_predicted"])]
        worst["type"] = wrong.sort_values("type_confidence", ascending=False, kind="stable").head(count)
    for task in REGRESSION_TASKS:
        if task in predictions:
            known = predictions.dropna(subset=[task])
            error = known[f"{task}_predicted"].astype("float64") - known[task].astype("float64")
            order = error.abs().sort_values(ascending=False, kind="stable").index[:count]
            worst[task] = known.assign(error=error).loc[order]
    return worst
