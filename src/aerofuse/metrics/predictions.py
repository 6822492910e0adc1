"""One model's predictions as a table with a row per image, and the worst mistakes in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from torch import Tensor

from aerofuse.data.labels import REGRESSION_TASKS
from aerofuse.metrics.statistics import Values

# Every column that a table may have, in order. A column without any label cannot tell its type itself.
_COLUMNS = {
    "filename": pa.string(),
    "type": pa.string(),
    "type_predicted": pa.string(),
    "type_confidence": pa.float32(),
    "type_confidence_uncalibrated": pa.float32(),
    "type_top5": pa.list_(pa.string()),
    "type_probabilities": pa.list_(pa.float32()),
    "airline": pa.string(),
    "airline_predicted": pa.string(),
    "airline_confidence": pa.float32(),
    "airline_confidence_uncalibrated": pa.float32(),
    "clarity": pa.float32(),
    "clarity_predicted": pa.float32(),
    "block": pa.float32(),
    "block_predicted": pa.float32(),
    "quality_score": pa.float32(),
}
_PLOTTED = ("type", "type_predicted", "clarity", "clarity_predicted", "block", "block_predicted")


def prediction_table(
    labels: pd.DataFrame,
    outputs: Mapping[str, Tensor],
    type_names: Sequence[str],
    airline_names: Sequence[str],
    *,
    uncalibrated: Mapping[str, Tensor],
) -> pd.DataFrame:
    """Return one row per image of `labels`, in order: label, prediction and confidence of every task in `outputs`.

    `labels` has the columns filename, typename, airlinename, clarity and block (missing: None or NaN). `outputs` is as
    for `compute_metrics`, with logits divided by their temperature; `uncalibrated` are the outputs of the model, and
    their confidences have columns of their own. `type_top5` lists the five likeliest names, `type_probabilities` the
    probabilities in the order of `type_names`; `quality_score` is the predicted clarity * (1 - block).

    Raises `ValueError` where the lengths differ or a label is not among the names.
    """
    columns: dict[str, object] = {"filename": labels["filename"].to_numpy()}
    for task, output in outputs.items():
        if len(output) != len(labels):
            raise ValueError(f"{task}: {len(output)} predictions for {len(labels)} images")
    if "type" in outputs:
        columns |= _classified("type", labels["typename"], outputs["type"], uncalibrated["type"], type_names)
        probabilities = outputs["type"].double().softmax(dim=1)
        best = probabilities.argsort(dim=1, descending=True, stable=True)[:, :5]
        columns["type_top5"] = [[type_names[index] for index in row] for row in best.tolist()]
        columns["type_probabilities"] = probabilities.tolist()
    if "airline" in outputs:
        names = airline_names
        columns |= _classified("airline", labels["airlinename"], outputs["airline"], uncalibrated["airline"], names)
    for task in REGRESSION_TASKS:
        if task in outputs:
            columns[task] = labels[task].to_numpy(dtype=np.float64)
            columns[f"{task}_predicted"] = outputs[task].double().numpy()
    if {"clarity", "block"} <= outputs.keys():
        columns["quality_score"] = (outputs["clarity"].double() * (1 - outputs["block"].double())).numpy()
    return pd.DataFrame({name: columns[name] for name in _COLUMNS if name in columns})


def write_predictions(path: Path, table: pd.DataFrame) -> None:
    """Write a table as parquet; the same table gives the same bytes. Raises `ValueError` for an unknown column."""
    unknown = [name for name in table.columns if name not in _COLUMNS]
    if unknown:
        raise ValueError(f"no column of predictions: {', '.join(unknown)}; there are {', '.join(_COLUMNS)}")
    schema = pa.schema([(name, _COLUMNS[name]) for name in table.columns])
    content = pa.Table.from_pandas(table, schema=schema, preserve_index=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The metadata of pandas names its version, and the file should depend on the table alone.
    pq.write_table(content.replace_schema_metadata(None), path)


def read_predictions(path: Path) -> pd.DataFrame:
    """Read a table that `write_predictions` wrote. Raises `FileNotFoundError`."""
    if not path.is_file():
        raise FileNotFoundError(f"no predictions at {path}; `dvc repro evaluate` makes them")
    table: pd.DataFrame = pq.read_table(path).to_pandas()
    return table


def per_image_values(table: pd.DataFrame) -> dict[str, Values]:
    """Return what each image adds to a mean metric, `[N]` each; NaN where the image has no such label.

    It is 1 or 0 for `type_top1` and `airline_top1`, and the absolute error for `clarity_mae` and `block_mae`.
    """
    values: dict[str, Values] = {}
    for task in ("type", "airline"):
        if task in table:
            correct = (table[task] == table[f"{task}_predicted"]).to_numpy(dtype=np.float64)
            values[f"{task}_top1"] = np.where(table[task].isna(), np.nan, correct)
    for task in REGRESSION_TASKS:
        if task in table:
            predicted = table[f"{task}_predicted"].to_numpy(dtype=np.float64)
            values[f"{task}_mae"] = np.abs(predicted - table[task].to_numpy(dtype=np.float64))
    return values


def plotted_columns(table: pd.DataFrame) -> pd.DataFrame:
    """Return the columns that DVC's own plots (confusion, scatter) need, with values rounded to 4 digits."""
    columns = [name for name in _PLOTTED if name in table]
    return table[columns].astype({name: "float64" for name in columns if not name.startswith("type")}).round(4)


def worst_mistakes(predictions: pd.DataFrame, count: int) -> dict[str, pd.DataFrame]:
    """Return the rows of the worst mistakes for each of type, clarity and block that is predicted, the worst first.

    Types: the wrong ones with the highest confidence. Clarity and block: the largest errors, which have a column
    `error`. There are at most `count` of each. Photos without the label are left out, and among equally bad ones the
    earlier come first.
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


def _classified(
    task: str, labels: pd.Series[str], logits: Tensor, uncalibrated: Tensor, names: Sequence[str]
) -> dict[str, object]:
    known = labels.dropna()
    unknown = sorted(set(known) - set(names))
    if unknown:
        raise ValueError(f"{task} {unknown[0]!r} is not a class of the model; it knows {', '.join(names)}")
    confidence, index = logits.double().softmax(dim=1).max(dim=1)
    return {
        task: [None if pd.isna(label) else label for label in labels],
        f"{task}_predicted": [names[best] for best in index.tolist()],
        f"{task}_confidence": confidence.numpy(),
        f"{task}_confidence_uncalibrated": uncalibrated.double().softmax(dim=1).amax(dim=1).numpy(),
    }
