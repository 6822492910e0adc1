"""Mixing the photos of a batch in pairs: mixup (arXiv 1710.09412) and CutMix (arXiv 1905.04899)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from aerofuse.common.torchvision_pairing import ensure_torchvision_imports
from aerofuse.data.labels import CLASSIFICATION_TASKS, MISSING_CLASS
from aerofuse.training.params import MixingParams

ensure_torchvision_imports()  # timm imports torchvision

from timm.data.mixup import cutmix_bbox_and_lam  # noqa: E402

Batch = tuple[Tensor, dict[str, Tensor]]


def mix(batch: Batch, params: MixingParams, num_classes: dict[str, int]) -> Batch:
    """Return a batch whose photos are mixed in pairs, the first with the last, or the batch itself.

    A class label becomes a share for each class, `[B, C]`, which add up to 1, or to less where one of the two labels
    is missing. How sharp a mixed photo is, and how much of an aircraft is hidden in it, nobody knows: those labels
    are missing. Random numbers are those of numpy's global generator, which a training saves.
    """
    ways = [way for way in ("mixup", "cutmix") if getattr(params, way) > 0]
    if not ways or np.random.random() >= params.probability:
        return batch
    images, targets = batch
    way = ways[np.random.randint(len(ways))]
    alpha = getattr(params, way)
    share = float(np.random.beta(alpha, alpha))
    partners = images.flip(0)
    if way == "cutmix":
        (top, bottom, left, right), share = cutmix_bbox_and_lam(images.shape, share)  # type: ignore[no-untyped-call]
        mixed = images.clone()
        mixed[..., top:bottom, left:right] = partners[..., top:bottom, left:right]
    else:
        mixed = torch.lerp(partners.float(), images.float(), share).round().to(images.dtype)
    return mixed, {
        task: _shares(values, num_classes[task], share)
        if task in CLASSIFICATION_TASKS
        else torch.full_like(values, torch.nan)
        for task, values in targets.items()
    }


def _shares(labels: Tensor, num_classes: int, share: float) -> Tensor:
    known = labels != MISSING_CLASS
    own = F.one_hot(labels.clamp(min=0), num_classes).float() * known[:, None]
    return share * own + (1 - share) * own.flip(0)
