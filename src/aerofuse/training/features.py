"""Heads from features: frozen backbones see each photo a few times, and the heads learn from what they found.

A frozen backbone finds the same in the same photo in every epoch. So its features are computed once for a stated number
of augmented views of each photo, kept on disk, and read by every epoch after that. Whoever trains the same heads on the
same features again, such as a sweep over fusions or learning rates, computes none.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset

from aerofuse.backbones.backbone import Features
from aerofuse.common.files import load_weights, read_json, save_weights, write_json
from aerofuse.data.dataset import Draw, PreparedSplit, Sample
from aerofuse.metrics.collect import collect_outputs
from aerofuse.models.aircraft_model import AircraftModel, evaluation_mode
from aerofuse.models.architecture import HybridModel

logger = logging.getLogger(__name__)

_KEPT = 2  # the latest, and the one before
_RECORD = "record.json"  # written last
_FEATURES = "features"


class FusedHeads(AircraftModel):
    """The fusion and the heads of a hybrid, which map packed features `[B, views, N]` to the hybrid's outputs.

    They are the hybrid's own modules: what they learn, it has learned. The outputs are means over the views.
    """

    def __init__(self, hybrid: HybridModel, packing: Packing) -> None:
        super().__init__()
        self.fusion, self.heads = hybrid.fusion, hybrid.heads
        self._packing = packing

    def parts(self) -> Mapping[str, nn.Module]:
        return {"fusion": self.fusion, "heads": self.heads}

    def get_features(self, images: Tensor) -> Tensor:
        """Return the fused features `[B, D]` of packed ones `[B, N]`."""
        fused: Tensor = self.run_part("fusion", *self._packing.unpack(images).values())
        return fused

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return the outputs for packed features `[B, views, N]`."""
        outputs = [self._one_view(view)[0] for view in images.unbind(1)]
        return {task: torch.stack([one[task] for one in outputs]).mean(0) for task in outputs[0]}


@dataclass(frozen=True)
class Packing:
    """How the features of the branches lie in one vector; shapes are those of one photo."""

    shapes: Mapping[str, tuple[tuple[int, ...], ...]]

    @classmethod
    def of(cls, hybrid: HybridModel, image_size_px: int) -> Packing:
        """Return the packing of what a hybrid's branches find in an image."""
        device = next(hybrid.parameters()).device
        with evaluation_mode(hybrid):
            features = hybrid.branch_features(torch.zeros(1, 3, image_size_px, image_size_px, device=device))
        return cls({name: tuple(tuple(one.shape[1:]) for one in _given(found)) for name, found in features.items()})

    @property
    def length(self) -> int:
        """Return the number of features of a photo."""
        return sum(int(np.prod(shape)) for shapes in self.shapes.values() for shape in shapes)

    def pack(self, features: Mapping[str, Features]) -> Tensor:
        """Return the features of all branches as `[B, N]`."""
        return torch.cat([one.flatten(1) for name in self.shapes for one in _given(features[name])], dim=1)

    def unpack(self, packed: Tensor) -> dict[str, Features]:
        """Return the features of each branch."""
        lengths = [int(np.prod(shape)) for shapes in self.shapes.values() for shape in shapes]
        vectors = iter(packed.split(lengths, dim=1))
        return {
            name: Features(*(next(vectors).unflatten(1, shape) for shape in shapes))
            for name, shapes in self.shapes.items()
        }


def _given(features: Features) -> Iterator[Tensor]:
    return (one for one in features if one is not None)


class FeatureSplit(PreparedSplit):
    """Photos of which the features are known: `(packed features [views, N], targets)`.

    A `Draw` gets one view, another one in each epoch in turn; a photo's index all of them.
    """

    def __init__(self, photos: PreparedSplit, folder: Path, name: str) -> None:
        super().__init__(photos.path, photos.classes)
        self._features_file = folder / f"{name}.npy"
        self._features = np.load(self._features_file, mmap_mode="r")  # [views, photos, N]
        self._seen_targets = load_weights(folder / f"{name}.safetensors")  # per task [views, photos]

    def __getitem__(self, draw: int | Draw) -> Sample:
        if not isinstance(draw, Draw):
            return torch.from_numpy(self._features[:, draw].copy()), self._targets[draw]
        view = (draw.epoch + draw.photo) % len(self._features)
        targets = {task: values[view, draw.photo] for task, values in self._seen_targets.items()}
        features = torch.from_numpy(self._features[view, draw.photo][None].copy())
        return features, self._no_targets if draw.is_filler else targets

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_features"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._features = np.load(self._features_file, mmap_mode="r")


@dataclass(frozen=True)
class SeenPhotos:
    """What frozen backbones found in the photos for training and for validation, and the seconds that it took."""

    train: FeatureSplit
    validation: FeatureSplit
    seconds: float


def see_photos(
    hybrid: HybridModel,
    packing: Packing,
    train: PreparedSplit,
    validation: PreparedSplit,
    views: int,
    batch_size: int,
    num_workers: int,
    accelerator: Accelerator,
    folder: Path,
) -> SeenPhotos:
    """Return the features of all photos, read from `folder` where they are there, else computed and kept there.

    The parent of `folder` holds others of older trainings; all but the latest are removed. Each photo for training is
    seen in `views` augmented views, those of as many epochs; each one for validation as it is, and mirrored where the
    hybrid sees mirrored photos. Several processes share the work, and each machine keeps its own copy.
    """
    if not _everywhere((folder / _RECORD).is_file(), accelerator):
        logger.info("the frozen backbones see %d photos %d times, and %d once", len(train), views, len(validation))
        started = time.perf_counter()
        look = _Look(hybrid, packing, accelerator)

        def find(photos: Dataset[Sample]) -> _View:
            loader = accelerator.prepare(DataLoader(photos, batch_size=batch_size, num_workers=num_workers))
            outputs, targets = collect_outputs(look, loader, accelerator)
            return outputs[_FEATURES], targets

        # In the split's own order, augmented as in each of the first epochs.
        draws = ([Draw(photo, epoch) for photo in range(len(train))] for epoch in range(1, views + 1))
        seen = [find(Subset(train, of_epoch)) for of_epoch in draws]  # type: ignore[arg-type]
        judged = [find(validation)]
        if hybrid.sees_mirrored:
            look.mirrored = True
            judged.append(find(validation))
        seconds = time.perf_counter() - started
        if accelerator.is_local_main_process:
            _keep({"train": seen, "validation": judged}, seconds, folder)
        accelerator.wait_for_everyone()
    return SeenPhotos(
        train=FeatureSplit(train, folder, "train"),
        validation=FeatureSplit(validation, folder, "validation"),
        seconds=float(read_json(folder / _RECORD)["seconds"]),
    )


def _everywhere(is_there: bool, accelerator: Accelerator) -> bool:
    flags = accelerator.gather(torch.tensor([is_there], device=accelerator.device))
    return bool(flags.all())


_View = tuple[Tensor, dict[str, Tensor]]  # features [photos, N], and the targets [photos] of each task


class _Look(nn.Module):
    """Images to the packed features of a hybrid's branches, as an output that is collected like those of a head."""

    def __init__(self, hybrid: HybridModel, packing: Packing, accelerator: Accelerator) -> None:
        super().__init__()
        self._hybrid, self._packing, self._accelerator = hybrid, packing, accelerator
        self.mirrored = False

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        images = images.flip(-1) if self.mirrored else images
        with self._accelerator.autocast():
            return {_FEATURES: self._packing.pack(self._hybrid.branch_features(images))}


def _keep(found: Mapping[str, list[_View]], seconds: float, folder: Path) -> None:
    """Write a folder, whole or not at all, and remove older ones beside it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    others = [path for path in folder.parent.iterdir() if path.is_dir()]
    for path in sorted(others, key=lambda path: path.stat().st_mtime)[: 1 - _KEPT or None]:
        shutil.rmtree(path, ignore_errors=True)
    unfinished = folder.with_name(f"{folder.name}-{os.getpid()}")
    unfinished.mkdir()
    for name, views in found.items():
        shape = (len(views), *views[0][0].shape)
        array = np.lib.format.open_memmap(unfinished / f"{name}.npy", "w+", np.float32, shape)
        for number, (features, _) in enumerate(views):
            array[number] = features.numpy()
        array.flush()
        targets = {task: torch.stack([targets[task] for _, targets in views]) for task in views[0][1]}
        save_weights(unfinished / f"{name}.safetensors", targets)
    write_json(unfinished / _RECORD, {"seconds": round(seconds, 1)})
    try:
        unfinished.replace(folder)
    except OSError:  # another process was faster, to the same end
        shutil.rmtree(unfinished)
