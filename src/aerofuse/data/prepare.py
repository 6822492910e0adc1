"""From a source of photos to the prepared splits that everything else reads."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from aerofuse.data.labels import ClassLists
from aerofuse.data.sources.base import Source
from aerofuse.data.splits import SPLITS, assign_splits
from aerofuse.data.store import PhotoWriter
from aerofuse.params.data import SplitParams

logger = logging.getLogger(__name__)


def prepare_photos(source: Source, split: SplitParams, image_size_px: int, folder: Path) -> pd.DataFrame:
    """Write `<split>.arrow` for each split and both class lists to `folder`; the index with its `split` column.

    Photos are ordered within a split as in the source. Raises `ValueError` where the photos cannot be split.
    """
    index = source.index()
    shares = {"train": split.train, "validation": split.validation, "test": split.test}
    # A photo whose airframe is not known stands for itself.
    groups = index["registration"].fillna("photo " + index["filename"])
    index["split"] = assign_splits(groups, index["typename"], shares, split.seed)
    folder.mkdir(parents=True, exist_ok=True)
    ClassLists(_names(index["typename"]), _names(index["airlinename"])).save(folder)
    with tqdm(total=len(index), desc="photos", unit="photo", disable=not sys.stderr.isatty()) as progress:
        for name in SPLITS:
            rows = np.flatnonzero(index["split"] == name).tolist()
            with PhotoWriter(folder / f"{name}.arrow") as writer:
                for photo in source.photos(rows, image_size_px):
                    writer.write(photo)
                    progress.update()
            logger.info("%s: %d photos", name, len(rows))
    return index


def _names(column: pd.Series) -> tuple[str, ...]:
    return tuple(sorted(column.dropna().unique()))
