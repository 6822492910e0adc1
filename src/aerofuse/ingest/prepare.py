"""Preparing photos: from a source to the splits that everything else reads."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm.auto import tqdm

from aerofuse.data.labels import ClassLists
from aerofuse.data.photo import Photo
from aerofuse.data.shards import ShardParams
from aerofuse.data.store import write_photos
from aerofuse.ingest.given_splits import GIVEN, keep_given_split
from aerofuse.ingest.params import SPLITS, Leaks, SplitParams
from aerofuse.ingest.sources import Source
from aerofuse.ingest.splits import OTHER, assign_splits, merge_small

logger = logging.getLogger(__name__)


def prepare_photos(
    source: Source,
    split: SplitParams,
    image_size_px: int,
    folder: Path,
    *,
    merge_small_types: bool = False,
    leaks: Leaks = "report",
    shards: ShardParams | None = None,
) -> pd.DataFrame:
    """Write `<split>.arrow` for each split, class lists and `table.parquet` to `folder`; return the index.

    The index has a column `split`, and `source_type` for the type before merging. A split that came with the data is
    kept, as far as `leaks` allows, and is the column `given_split`. Photos are ordered within a split as in the source.
    Types too small to be split are merged into one, or refused. Images go to `shards` where these have a size. Raises
    `ValueError` where the photos cannot be split, `ConnectionError` where an object store refuses shards.
    """
    index = source.index()
    index["source_type"] = index["typename"]
    if "split" in index:
        index = index.rename(columns={"split": GIVEN})
        index["split"] = keep_given_split(index, split, leaks)
    else:
        if merge_small_types:
            index["typename"] = merge_small(index["group"], index["typename"])
        shares = {"train": split.train, "validation": split.validation, "test": split.test}
        index["split"] = assign_splits(index["group"], index["typename"], shares, split.seed)
    folder.mkdir(parents=True, exist_ok=True)
    ClassLists(_types(source.types, index), source.airlines).save(folder)
    with tqdm(total=len(index), desc="photos", unit="photo", disable=None) as progress:

        def photos_of(name: str, rows: list[int]) -> Iterator[Photo]:
            photos = source.photos(rows, image_size_px, for_training=name == "train")
            for photo, typename in zip(photos, index["typename"].iloc[rows], strict=True):
                yield replace(photo, typename=typename)
                progress.update()

        for name in SPLITS:
            rows = np.flatnonzero(index["split"] == name).tolist()
            write_photos(folder / f"{name}.arrow", photos_of(name, rows), source.fit, shards)
            logger.info("%s: %d photos", name, len(rows))
    known = index.drop(columns=["group", "near_duplicates", "remarks"], errors="ignore")
    table = pa.Table.from_pandas(known, preserve_index=False)
    # The metadata that pandas adds names its version.
    pq.write_table(table.replace_schema_metadata(None), folder / "table.parquet")
    return index


def _types(listed: tuple[str, ...], index: pd.DataFrame) -> tuple[str, ...]:
    """The class list without what was merged, which comes last as one."""
    merged = set(index.loc[index["typename"] != index["source_type"], "source_type"])
    kept = tuple(name for name in listed if name not in merged)
    return (*kept, OTHER) if merged else kept
