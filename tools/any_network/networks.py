"""The networks that are tried: how each is built, small where its library allows it, with the smallest images it takes.

Of timm it is one network per model file and set of block classes, the one with the fewest parameters.
"""

from __future__ import annotations

import csv
import functools
import inspect
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

from aerofuse.common.torchvision_pairing import ensure_torchvision_imports

ensure_torchvision_imports()

import timm  # noqa: E402
import torchvision  # noqa: E402

logger = logging.getLogger(__name__)

TIMM, TORCHVISION, HUGGING_FACE = "timm", "torchvision", "Hugging Face"
_CHOSEN = Path(__file__).with_name("timm_networks.csv")
_NUM_CLASSES = 8
_RATE = 0.1  # of dropout and drop-path
# Parameters; and of a network with more, the number of blocks where it can be chosen.
_LARGE, _DEPTH = 50_000_000, 4
_SIZES_PX = (64, 96, 128, 160, 192, 224, 240, 256, 299, 384, 448, 512)


@dataclass(frozen=True)
class NetworkName:
    """A network of a library, and the file that it is built by."""

    library: str
    name: str
    file: str


@dataclass(frozen=True)
class Built:
    """A network in training mode, and the shape of the batch that it is tried with."""

    network: nn.Module
    input_shape: tuple[int, ...]


def all_networks() -> list[NetworkName]:
    """Return the networks of all libraries; those of Hugging Face only where `transformers` is installed."""
    names = [NetworkName(TIMM, name, file) for name, file in _chosen_of_timm()]
    for name in torchvision.models.list_models(module=torchvision.models):
        builder = inspect.unwrap(torchvision.models.get_model_builder(name))
        names.append(NetworkName(TORCHVISION, name, builder.__module__.rpartition(".")[2]))
    if find_spec("transformers") is not None:
        from tools.any_network.hugging_face import CONFIGS

        names += [NetworkName(HUGGING_FACE, name, name) for name in CONFIGS]
    return names


def build(name: NetworkName, least_px: int = 0) -> Built:
    """Return a network with random weights, dropout and drop-path, for the smallest images that it takes.

    They have `least_px` or more, where its library lets the size be chosen. Raises what the library raises.
    """
    torch.manual_seed(0)
    if name.library == HUGGING_FACE:
        from tools.any_network.hugging_face import build_hugging_face

        network, size_px = build_hugging_face(name.name)
        return Built(network.train(), (2, 3, size_px, size_px))
    builder = _build_timm if name.library == TIMM else _build_torchvision
    return _smallest(partial(builder, name.name), least_px)


def choose_of_timm() -> None:
    """Write which networks of timm are tried. Takes about ten minutes: each one is built, on the device `meta`."""
    smallest: dict[tuple[str, tuple[str, ...]], tuple[int, str]] = {}
    for name in timm.list_models():
        try:
            with torch.device("meta"):
                network = timm.create_model(name)
        except Exception as error:  # some ask for values while they are built
            logger.warning("%s is not built on meta, so it stands for itself: %s", name, error)
            smallest[_file_of(name), (name,)] = 0, name
            continue
        classes = {type(module) for module in network.modules()}
        kinds = sorted(one.__name__ for one in classes if one.__module__.startswith("timm.models."))
        size = sum(parameter.numel() for parameter in network.parameters())
        key = _file_of(name), tuple(kinds)
        smallest[key] = min(smallest.get(key, (size, name)), (size, name))
    with _CHOSEN.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("name", "file"))
        writer.writerows(sorted((name, file_name) for (file_name, _), (_, name) in smallest.items()))


def _chosen_of_timm() -> Iterator[tuple[str, str]]:
    with _CHOSEN.open(encoding="utf-8", newline="") as file:
        yield from ((row["name"], row["file"]) for row in csv.DictReader(file))


def _file_of(name: str) -> str:
    return str(timm.model_entrypoint(name).__module__).rpartition(".")[2]


def _build_timm(name: str, size_px: int) -> nn.Module:
    rates = {"drop_rate": _RATE, "drop_path_rate": _RATE}
    settings: list[Mapping[str, Any]] = [{"img_size": size_px, **rates}, rates, {"img_size": size_px}, {}]
    if _is_large(name):
        settings = [{"depth": _DEPTH, **one} for one in settings] + settings
    return _first_that_builds([partial(timm.create_model, name, num_classes=_NUM_CLASSES, **one) for one in settings])


@functools.cache
def _is_large(name: str) -> bool:
    """Return whether a network of timm has so many parameters that fewer of its equal blocks are tried."""
    try:
        with torch.device("meta"):
            network = timm.create_model(name)
    except Exception:  # some ask for values while they are built
        return False
    return sum(parameter.numel() for parameter in network.parameters()) > _LARGE


def _build_torchvision(name: str, size_px: int) -> nn.Module:
    settings: list[Mapping[str, Any]] = [{"image_size": size_px}, {"init_weights": True}, {}]
    builder = partial(torchvision.models.get_model, name, num_classes=_NUM_CLASSES)
    return _first_that_builds([partial(builder, **one) for one in settings])


def _first_that_builds(builders: list[Callable[[], nn.Module]]) -> nn.Module:
    """Return what the first of them builds that knows its arguments."""
    *tried, last = builders
    for builder in tried:
        try:
            return builder()
        except (TypeError, ValueError, AssertionError, RuntimeError):
            continue
    return last()


def _smallest(builder: Callable[[int], nn.Module], least_px: int) -> Built:
    network: nn.Module | None = None
    for size_px in (size for size in _SIZES_PX if size >= least_px):
        shape = (2, 3, size_px, size_px)
        try:
            network = builder(size_px).train()
            with torch.no_grad():
                network(torch.rand(shape))
        except Exception as error:  # each library says in its own way that images are too small
            problem = error
            continue
        return Built(builder(size_px).train(), shape)
    raise problem
