"""timm imports beside a CPU build of torch, and nothing is defined where nothing is needed.

Each case runs in a Python of its own: what is imported, and which operators exist, is known once per process.
"""

from __future__ import annotations

import pytest

from tests.new_python import check_in_new_python

pytestmark = pytest.mark.slow

NOTHING_DEFINED = """
import torch
from aerofuse.common import torchvision_pairing

def defining(*arguments):
    raise AssertionError("defined operators where none are needed")

torch.library.Library = defining
assert torchvision_pairing.ensure_torchvision_imports() is None
assert not hasattr(torch.ops.torchvision, "nms")
"""


def test_timm_imports_after_it_and_runs() -> None:
    check_in_new_python("""
import torch
from aerofuse.common.torchvision_pairing import ensure_torchvision_imports

library = ensure_torchvision_imports()
assert ensure_torchvision_imports() is library, "the second call must define nothing"
import timm
import torchvision
from torchvision.models.video import swin3d_t

model = timm.create_model("convnext_atto", num_classes=0).eval()
assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 320)
assert torch.ops.torchvision.nms is not None
assert torch.ops.torchvision.qnms is not None
""")


def test_operators_are_defined_just_where_the_extension_does_not_load() -> None:
    check_in_new_python("""
from pathlib import Path
import importlib.util
import torch
from aerofuse.common import torchvision_pairing

folder = Path(importlib.util.find_spec("torchvision").origin).parent
loads = torchvision_pairing._extension_loads(folder)
assert (torchvision_pairing.ensure_torchvision_imports() is None) == loads
assert hasattr(torch.ops.torchvision, "nms")
""")


def test_without_torchvision_nothing_is_done() -> None:
    check_in_new_python(
        """
import importlib.util
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "torchvision" else find_spec(name, *rest)
"""
        + NOTHING_DEFINED
    )


def test_after_an_import_of_torchvision_nothing_is_done() -> None:
    check_in_new_python(
        """
import sys, types
sys.modules["torchvision"] = types.ModuleType("torchvision")
"""
        + NOTHING_DEFINED
    )


def test_with_an_extension_that_loads_nothing_is_done() -> None:
    check_in_new_python(
        """
import torch
torch.ops.load_library = lambda path: None
"""
        + NOTHING_DEFINED
    )
