"""How fast photos are loaded and augmented for training: `python -m tools.benchmarks.loading`.

The same drawn photos, enlarged to the size of files that people have: as a prepared split, as files under torchvision's
ImageFolder, and as files read by Pillow and resized by this project's own functions. Every way is a torch DataLoader
over the same number of worker processes, and the ways take turns. `reports/benchmarks/` gets a table named by what it
ran on.
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from aerofuse.common.params import load_section
from aerofuse.common.torchvision_pairing import ensure_torchvision_imports
from aerofuse.data.dataset import PreparedSplit
from aerofuse.data.labels import ClassLists
from aerofuse.data.photo import Photo, fit_square, open_photo
from aerofuse.data.store import write_photos
from aerofuse.data.transforms import AugmentationParams, make_augmentation
from aerofuse.ingest.params import DataParams
from aerofuse.ingest.sources import SyntheticSource
from tools.benchmarks.results import LOADING
from tools.benchmarks.side_by_side import write_table

GOAL_IMAGES_PER_SECOND = 350
_DRAWN_PX = 256
_AUGMENTATION = AugmentationParams(horizontal_flip=True, color_jitter=0.2)  # of the recipe `base`
logger = logging.getLogger(__name__)


class _Files(Dataset[Tensor]):
    """Photo files read by Pillow, fitted and augmented as this project does it."""

    def __init__(self, paths: Sequence[Path], side_px: int) -> None:
        self._paths = paths
        self._side_px = side_px
        self._augment = make_augmentation(_AUGMENTATION, seed=0)

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Tensor:
        image = fit_square(open_photo(self._paths[index], self._side_px).image, self._side_px, "letterbox")
        return torch.from_numpy(np.ascontiguousarray(self._augment(image, (0, index)).image.transpose(2, 0, 1)))


def _image_folder(root: Path, side_px: int) -> Dataset[Any]:
    ensure_torchvision_imports()
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    jitter = _AUGMENTATION.color_jitter
    steps = [
        v2.Resize((side_px, side_px)),
        v2.RandomHorizontalFlip(),
        v2.RandomApply([v2.ColorJitter(jitter, jitter, jitter)], p=0.8),
        v2.PILToTensor(),
    ]
    folder: Dataset[Any] = ImageFolder(str(root), v2.Compose(steps))
    return folder


def _draw(folder: Path, count: int, side_px: int, file_side_px: int) -> tuple[Path, Path]:
    """The photos as files of `file_side_px` and as a prepared split of `side_px`: the folder and the Arrow file.

    They are drawn smaller, which takes a second for fifty of them instead of for one.
    """
    params = load_section(DataParams, "data")
    source = SyntheticSource(params.synthetic.model_copy(update={"num_images": count}), 0)
    files = folder / "files" / "aircraft"
    files.mkdir(parents=True)

    def prepared() -> Iterator[Photo]:
        drawn = source.photos(range(count), min(file_side_px, _DRAWN_PX), for_training=True)
        for photo in tqdm(drawn, desc="photos drawn", total=count, unit="photo", disable=None):
            path = files / photo.filename
            large = Image.fromarray(photo.image).resize((file_side_px, file_side_px), Image.Resampling.BICUBIC)
            large.save(path.with_suffix(".jpg"), quality=92)
            image = fit_square(open_photo(path.with_suffix(".jpg"), side_px).image, side_px, "letterbox")
            yield Photo(image, photo.filename, photo.typename, photo.airlinename, photo.clarity, photo.block, None)

    arrow = folder / "train.arrow"
    write_photos(arrow, prepared())
    return files.parent, arrow


def _images_per_second(dataset: Dataset[Any], count: int, workers: int) -> float:
    loader = DataLoader(dataset, batch_size=32, num_workers=workers, shuffle=True, persistent_workers=True)
    for _ in loader:  # starts the workers, and reads the files into the system's memory
        pass
    started = time.perf_counter()
    for _ in loader:
        pass
    return count / (time.perf_counter() - started)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, write the table, and say whether the goal is reached."""
    parser = argparse.ArgumentParser(prog="python -m tools.benchmarks.loading", description=__doc__)
    parser.add_argument("--photos", type=int, default=1024, help="photos (default: 1024)")
    parser.add_argument("--image-size", type=int, default=224, metavar="PX", help="side in training (default: 224)")
    parser.add_argument("--file-size", type=int, default=1024, metavar="PX", help="side of the files (default: 1024)")
    parser.add_argument("--workers", type=int, default=2, help="worker processes (default: 2)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of all ways (default: 3)")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    with tempfile.TemporaryDirectory() as folder:
        root, arrow = _draw(Path(folder), options.photos, options.image_size, options.file_size)
        paths = sorted(root.rglob("*.jpg"))
        source = SyntheticSource(load_section(DataParams, "data").synthetic, 0)
        classes = ClassLists(source.types, source.airlines)
        ways: dict[str, Callable[[], Dataset[Any]]] = {
            "prepared split": lambda: PreparedSplit(arrow, classes, make_augmentation(_AUGMENTATION, seed=0)),
            "ImageFolder": lambda: _image_folder(root, options.image_size),
            "Pillow on the files": lambda: _Files(paths, options.image_size),
        }
        speeds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(options.rounds):
            for name, make in ways.items():
                speeds[name].append(_images_per_second(make(), options.photos, options.workers))
    rows = [
        {
            "way": name,
            "images_per_second": round(statistics.median(found), 1),
            "least": round(min(found), 1),
            "most": round(max(found), 1),
            "image_size_px": options.image_size,
            "file_size_px": options.file_size,
            "workers": options.workers,
            "cores": len(os.sched_getaffinity(0)),
            "photos": options.photos,
        }
        for name, found in speeds.items()
    ]
    write_table(pd.DataFrame(rows), LOADING)
    reached = "reached" if rows[0]["images_per_second"] >= GOAL_IMAGES_PER_SECOND else "missed"
    logger.info("the goal of %s images/s from prepared data is %s", GOAL_IMAGES_PER_SECOND, reached)


if __name__ == "__main__":
    main()
