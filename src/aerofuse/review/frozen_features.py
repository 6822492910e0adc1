"""What a frozen network finds in photos: one vector of features each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from tqdm import tqdm

from aerofuse.backbones.package_weights import PACKAGES
from aerofuse.backbones.weights import packaged_backbone
from aerofuse.data.photo import Fit, UnreadablePhotoError, fit_square, open_photo
from aerofuse.inference.package import as_batch, load_package
from aerofuse.ingest.fingerprint import fingerprint
from aerofuse.models.aircraft_model import Normalise

FloatArray = npt.NDArray[np.float32]

DEFAULT_BACKBONE = "tf_efficientnet_lite0"
DEFAULT_SIDE_PX = 224


@dataclass(frozen=True)
class FrozenNetwork:
    """A network that does not learn: uint8 images `[B, 3, side_px, side_px]` to features `[B, D]`."""

    name: str
    side_px: int
    find: Callable[[Tensor], Tensor]
    device: torch.device
    fit: Fit = "letterbox"


@dataclass(frozen=True, eq=False)
class PhotoFeatures:
    """Features `[N, D]` and perceptual hashes of the photos that were read, which are the numbers in `read`.

    `problems` has the reason for each number that was not.
    """

    features: FloatArray
    fingerprints: list[bytes]
    read: list[int]
    problems: Mapping[int, str]


def packaged_network(backbone: str, side_px: int, device: torch.device) -> FrozenNetwork:
    """Return a backbone with the ImageNet weights of a package. Raises as `packaged_backbone`."""
    if backbone not in PACKAGES:
        raise ValueError(f"no package has weights for {backbone!r}; there are {', '.join(PACKAGES)}, or use --model")
    network, _ = packaged_backbone(backbone, side_px)
    whole = torch.nn.Sequential(Normalise(), network).eval().to(device)
    return FrozenNetwork(f"{backbone}, ImageNet weights", side_px, whole, device)


def model_network(folder: Path, device: torch.device) -> FrozenNetwork:
    """Return the backbones of a trained model, with its fusion, at its image size.

    Raises what `load_package` raises.
    """
    model, record = load_package(folder)
    return FrozenNetwork(str(folder), record.image_size_px, model.eval().to(device).get_features, device, record.fit)


def find_features(
    files: Sequence[Path], network: FrozenNetwork, *, batch_size: int = 16, banner_px: int = 0
) -> PhotoFeatures:
    """Return the features of photo files: the mean over each photo and its mirror image.

    The lowest `banner_px` rows of a photo are cut off. Raises `ValueError` where no file can be read.
    """
    found: list[FloatArray] = []
    fingerprints: list[bytes] = []
    read: list[int] = []
    problems: dict[int, str] = {}
    with tqdm(total=len(files), desc="photos seen", unit="photo", disable=None) as bar:
        for start in range(0, len(files), batch_size):
            images = []
            for number, file in enumerate(files[start : start + batch_size], start):
                try:
                    photo = open_photo(file, network.side_px, banner_px=banner_px).image
                except UnreadablePhotoError as error:
                    problems[number] = str(error)
                    continue
                images.append(fit_square(photo, network.side_px, network.fit))
                fingerprints.append(fingerprint(photo))
                read.append(number)
            if images:
                found.append(_features(network, as_batch(images).to(network.device)))
            bar.update(min(batch_size, len(files) - start))
    if not found:
        first = f", such as {files[0]}: {problems[0]}" if files else ""
        raise ValueError(f"none of {len(files)} photos can be read{first}")
    return PhotoFeatures(np.concatenate(found), fingerprints, read, problems)


@torch.inference_mode()
def _features(network: FrozenNetwork, images: Tensor) -> FloatArray:
    both = (network.find(images) + network.find(images.flip(-1))) / 2
    features: FloatArray = both.float().cpu().numpy()
    if not np.isfinite(features).all():
        raise ValueError(f"{network.name} finds NaN or infinity; its weights are damaged")
    return features
