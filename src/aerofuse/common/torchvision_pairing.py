"""Make `import torchvision` possible beside a CPU build of torch.

timm imports torchvision, whose wheel is built for CUDA. Beside a CPU build of torch, its extension cannot load, so
the import fails with `operator torchvision::nms does not exist`. Nothing here calls `nms` or `qnms`, so defining
their schemas is enough. Call `ensure_torchvision_imports()` before the first import of timm or torchvision.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from functools import cache
from pathlib import Path

import torch


def _extension_loads(package_dir: Path) -> bool:
    """Whether torchvision's compiled extension loads beside the torch that is installed."""
    finder = importlib.machinery.FileFinder(
        str(package_dir), (importlib.machinery.ExtensionFileLoader, importlib.machinery.EXTENSION_SUFFIXES)
    )
    spec = finder.find_spec("_C")
    if spec is None or spec.origin is None:
        return False
    try:
        torch.ops.load_library(spec.origin)
    except OSError:
        return False
    return True


@cache
def ensure_torchvision_imports() -> torch.library.Library | None:
    """Define the schemas of the two missing operators where torchvision's extension cannot load.

    Returns the library that holds them (it must stay referenced, which the cache sees to), or `None` where
    nothing was needed: torchvision is absent, already imported, or its extension loads.
    """
    if "torchvision" in sys.modules:
        return None
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None or _extension_loads(Path(spec.origin).parent):
        return None
    library = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library
