"""Summing up a prepared data set: its photos, labels and faults."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from aerofuse.data.labels import REGRESSION_TASKS
from aerofuse.data.store import PhotoStore
from aerofuse.ingest.given_splits import GIVEN, divided_groups
from aerofuse.ingest.params import SPLITS, TRAIN, VALIDATION
from aerofuse.ingest.sources import Source

_EXAMPLES = 10


@dataclass(frozen=True)
class SplitSummary:
    """One split: photos, airframes that are known, photos per type and airline, labelled photos per task.

    `histograms` are counts of the regression labels in ten bins from 0 to 1.
    """

    photos: int
    airframes: int
    types: Mapping[str, int]
    airlines: Mapping[str, int]
    labelled: Mapping[str, int]
    histograms: Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class Group:
    """Photos that belong together, with their splits: the given ones, where the split came with the data."""

    filenames: Sequence[str]
    splits: Sequence[str]


@dataclass(frozen=True)
class DataSummary:
    """The whole of a data set as prepared.

    `merged_types` became one class, `left_out_types` were not chosen. `near_duplicates` (`None` for drawn photos, which
    are not compared) and `shared_airframes` are numbers of groups, with the largest as examples. `contradictions` are
    near-duplicates with several types. `divided_duplicates` and `divided_airframes` are in several splits, which only
    a split that came with the data can have; `moved` are the photos that left theirs for that reason: name, given
    split, split. `cut_validation` counts photos given for train that are in validation. `dropped` are photos left out,
    with the reason; `unlisted` are files without labels.
    """

    splits: Mapping[str, SplitSummary]
    merged_types: Mapping[str, int]
    left_out_types: Mapping[str, int]
    near_duplicates: int | None
    duplicate_examples: Sequence[Group]
    divided_duplicates: Sequence[Group]
    divided_airframes: Sequence[Group]
    moved: Sequence[tuple[str, str, str]]
    cut_validation: int
    contradictions: Sequence[Group]
    shared_airframes: int
    airframe_examples: Sequence[Group]
    remarks: Mapping[str, int]
    dropped: Sequence[tuple[str, str]]
    unlisted: Sequence[str]


def summarise(index: pd.DataFrame, source: Source, prepared: Path) -> DataSummary:
    """Sum up the index that `prepare_photos` returned, its source, and the prepared splits in the folder `prepared`."""
    near_duplicates, duplicate_examples = _shared(index, "near_duplicates")
    shared_airframes, airframe_examples = _shared(index, "registration")
    merged = index[index["typename"] != index["source_type"]]
    given = index[GIVEN] if GIVEN in index else index["split"]
    cut = (given == TRAIN) & (index["split"] == VALIDATION)
    moved = index[(given != index["split"]) & ~cut]
    remarks: Counter[str] = Counter(remark for found in index.get("remarks", ()) for remark in found)
    return DataSummary(
        splits={name: _summarise_split(prepared / f"{name}.arrow") for name in SPLITS},
        merged_types={str(name): int(count) for name, count in merged["source_type"].value_counts().items()},
        left_out_types=source.left_out_types,
        near_duplicates=near_duplicates if "near_duplicates" in index else None,
        duplicate_examples=duplicate_examples,
        divided_duplicates=[_group(photos) for photos in divided_groups(index, "near_duplicates")],
        divided_airframes=[_group(photos) for photos in divided_groups(index, "registration")],
        moved=list(zip(moved["filename"], given[moved.index], moved["split"], strict=True)),
        cut_validation=int(cut.sum()),
        contradictions=[_group(photos) for photos in divided_groups(index, "near_duplicates", "typename")],
        shared_airframes=shared_airframes,
        airframe_examples=airframe_examples,
        remarks=dict(remarks.most_common()),
        dropped=[(str(name), str(reason)) for name, reason in source.dropped.itertuples(index=False)],
        unlisted=list(source.unlisted),
    )


def _summarise_split(split: Path) -> SplitSummary:
    frame: pd.DataFrame = PhotoStore(split).labels.to_pandas()
    columns = {"type": "typename", "airline": "airlinename"} | {task: task for task in REGRESSION_TASKS}
    return SplitSummary(
        photos=len(frame),
        airframes=int(frame["registration"].nunique()),
        types=_counts(frame["typename"]),
        airlines=_counts(frame["airlinename"]),
        labelled={task: int(frame[column].notna().sum()) for task, column in columns.items()},
        histograms={
            task: np.histogram(frame[task].dropna().to_numpy(np.float64), bins=10, range=(0, 1))[0].tolist()
            for task in REGRESSION_TASKS
        },
    )


def _counts(column: pd.Series) -> dict[str, int]:
    return {str(name): int(count) for name, count in column.value_counts().sort_index().items()}


def _shared(index: pd.DataFrame, column: str) -> tuple[int, list[Group]]:
    """Return how many values of a column several photos have, and the photos of the most frequent ones."""
    if column not in index:
        return 0, []
    sizes = index[column].value_counts().sort_index().sort_values(ascending=False, kind="stable")
    sizes = sizes[sizes > 1]
    return len(sizes), [_group(index[index[column] == value]) for value in sizes.index[:_EXAMPLES]]


def _group(photos: pd.DataFrame) -> Group:
    return Group(list(photos["filename"]), list(photos[GIVEN if GIVEN in photos else "split"]))
