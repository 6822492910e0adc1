"""How fast a training reads its photos from shards: `python -m tools.benchmarks.shards`.

The same drawn photos are prepared as one file, as shards beside their index, and as shards in an object store. That is
a folder that fsspec reads as one, or the store that `--url s3://...` names. In each round every way loads an epoch,
and trains a small network on some batches; its share is that of the one file's speed in the same round. Shards of the
store are read with a cache for all of them, from an empty one, and with a cache for half of them: shuffled within a
quarter of the shards at a time, and within all. `reports/benchmarks/` gets a table named by what it ran on. Nothing
else should run.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import chdir
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from aerofuse.backbones.backbone import Backbone, create_backbone
from aerofuse.common.params import load_section
from aerofuse.data.dataset import PreparedSplit, Sample, TrainingLoader
from aerofuse.data.labels import ClassLists
from aerofuse.data.photo import Photo
from aerofuse.data.shards import ShardParams
from aerofuse.data.store import write_photos
from aerofuse.data.transforms import AugmentationParams, make_augmentation
from aerofuse.ingest.params import DataParams
from aerofuse.ingest.sources import SyntheticSource
from tools.benchmarks.results import FOLDER, SHARDS
from tools.benchmarks.side_by_side import machine

GOAL = 0.95  # of the speed of training from one file
_BATCH_SIZE = 32
_AUGMENTATION = AugmentationParams(horizontal_flip=True, color_jitter=0.2)  # of the recipe `base`
_INDEX, _CACHE = "train.arrow", "cache"
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ReadingWay:
    """A prepared split in a folder, and how a training reads it. Where `is_cold`, nothing is in the cache at first."""

    name: str
    folder: Path
    shuffle_shards: int | None = None
    is_cold: bool = False


def make_ways(folder: Path, photos: Sequence[Photo], num_shards: int, url: str) -> list[ReadingWay]:
    """Prepare the photos in every way, about so many shards of them."""

    def prepared(name: str, shards: ShardParams | None, cache_bytes: int) -> Path:
        (folder / name).mkdir()
        cache = f"shard_cache: {{folder: {_CACHE}, size: {cache_bytes} B}}\n"
        (folder / name / "params.yaml").write_text(cache, encoding="utf-8")
        write_photos(folder / name / _INDEX, photos, shards=shards)
        return folder / name

    one_file = prepared("file", None, 1)
    num_bytes = (one_file / _INDEX).stat().st_size
    here, there = (ShardParams(size=f"{num_bytes // num_shards} B", url=place) for place in (None, url))
    roomy, tight = prepared("roomy", there, 4 * num_bytes), prepared("tight", there, num_bytes // 2)
    return [
        ReadingWay("one file", one_file),
        ReadingWay("shards here", prepared("here", here, 1)),
        ReadingWay("shards of a store, all in the cache", roomy),
        ReadingWay("shards of a store, none in the cache", roomy, is_cold=True),
        ReadingWay("half in the cache, a quarter shuffled at a time", tight, max(1, num_shards // 4)),
        ReadingWay("half in the cache, all shuffled", tight),
    ]


def measure(way: ReadingWay, classes: ClassLists, backbone: Backbone, workers: int, steps: int) -> tuple[float, float]:
    """Return the images a second of loading an epoch, and of training the backbone on `steps` batches."""
    with chdir(way.folder):
        split = PreparedSplit(Path(_INDEX), classes, make_augmentation(_AUGMENTATION, seed=0))
        loader = TrainingLoader(
            split, batch_size=_BATCH_SIZE, num_workers=workers, seed=0, shuffle_shards=way.shuffle_shards
        )
        for _ in loader.epoch(1):  # starts the workers, and reads the files into the system's memory
            pass
        if way.is_cold:
            shutil.rmtree(_CACHE)
        loaded = _images_per_second(loader.epoch(2))
        if way.is_cold:
            shutil.rmtree(_CACHE)
        return loaded, _images_per_second(_train(backbone, islice(loader.epoch(3), steps)))


def _images_per_second(batches: Iterator[Sample]) -> float:
    started = time.perf_counter()
    images = sum(len(images) for images, _ in batches)
    return images / (time.perf_counter() - started)


def _train(backbone: Backbone, batches: Iterator[Sample]) -> Iterator[Sample]:
    """Yield batches that the backbone was trained on."""
    optimizer = torch.optim.SGD(backbone.parameters(), lr=1e-3)
    for batch in batches:
        backbone(batch[0].float() / 255).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        yield batch


def compare(
    ways: Sequence[ReadingWay], classes: ClassLists, backbone: Backbone, workers: int, steps: int, rounds: int
) -> pd.DataFrame:
    """Measure all ways in turn, and return a row for each: medians, and shares of the first way's speed."""
    found = np.array(
        [[measure(way, classes, backbone, workers, steps) for way in ways] for _ in tqdm(range(rounds), "rounds")]
    )
    shares = np.median(found / found[:, :1], axis=0)
    middle, least, most = np.median(found, axis=0), found.min(axis=0), found.max(axis=0)
    columns: dict[str, object] = {"way": [way.name for way in ways]}
    for number, name in enumerate(("loaded", "trained")):
        columns[f"{name}_per_second"] = middle[:, number].round(1)
        columns[f"{name}_least"] = least[:, number].round(1)
        columns[f"{name}_most"] = most[:, number].round(1)
        columns[f"{name}_share"] = shares[:, number].round(3)
    return pd.DataFrame(columns)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, write the table, and say whether the goal is reached."""
    parser = argparse.ArgumentParser(prog="python -m tools.benchmarks.shards", description=__doc__)
    parser.add_argument("--photos", type=int, default=2048, help="photos (default: 2048)")
    parser.add_argument("--image-size", type=int, default=224, metavar="PX", help="side in training (default: 224)")
    parser.add_argument("--shards", type=int, default=16, help="about so many (default: 16)")
    parser.add_argument("--url", help="a folder in an object store, which is filled (default: a folder here)")
    parser.add_argument("--workers", type=int, default=2, help="worker processes (default: 2)")
    parser.add_argument("--steps", type=int, default=10, help="batches trained on (default: 10)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of all ways (default: 5)")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    params = load_section(DataParams, "data").synthetic.model_copy(update={"num_images": options.photos})
    source = SyntheticSource(params, 0)
    drawn = source.photos(range(options.photos), options.image_size, for_training=True)
    photos = list(tqdm(drawn, "photos drawn", options.photos, unit="photo", disable=None))
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "store").mkdir()
        url = options.url or f"file://{folder}/store"
        ways = make_ways(Path(folder), photos, options.shards, url)
        classes = ClassLists(source.types, source.airlines)
        backbone = create_backbone("convnext_thin", image_size_px=options.image_size).train()
        table = compare(ways, classes, backbone, options.workers, options.steps, options.rounds)
    settings = {"photos": options.photos, "image_size_px": options.image_size, "shards": options.shards}
    settings |= {"workers": options.workers, "cores": len(os.sched_getaffinity(0))}
    table = table.assign(**settings, store=url.partition(":")[0])
    path = FOLDER / f"{machine(torch.device('cpu')).name(SHARDS)}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(path, index=False, lineterminator="\n")
    logger.info("%s\nwritten to %s", table.to_string(index=False), path)
    share = table["trained_share"][1:3].min()
    reached = "reached" if share >= GOAL else "missed"
    logger.info("%s of the speed of one file in training; the goal of %s is %s", share, GOAL, reached)


if __name__ == "__main__":
    main()
