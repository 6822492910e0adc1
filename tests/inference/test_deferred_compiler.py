"""Each case runs in a Python of its own: what is imported is known once per process."""

from __future__ import annotations

import pytest

from tests.new_python import check_in_new_python

pytestmark = pytest.mark.slow

DEFERRED = """
import sys
import torch
from aerofuse.inference.deferred_compiler import deferred_compiler

with deferred_compiler():
    import aerofuse.models.files
"""


def test_the_compiler_is_not_imported_and_works_when_it_is_wanted() -> None:
    check_in_new_python(
        DEFERRED
        + """
assert "timm" in sys.modules and "torchvision" in sys.modules
assert not [name for name in sys.modules if name.startswith("torch._dynamo")]
double = torch.compile(lambda x: 2 * x, backend="eager")
assert double(torch.ones(1)).item() == 2
assert torch._dynamo is sys.modules["torch._dynamo"] and torch._dynamo.config is not None
# What was handed out while it was away does what the real one does.
from torch._dynamo.utils import is_compile_supported
module = sys.modules["torchvision.ops.roi_align"]
assert module.is_compile_supported("cpu") == is_compile_supported("cpu")
from timm.models.naflexvit import NaFlexRopeIterator
at_its_end = NaFlexRopeIterator.__new__(NaFlexRopeIterator)
at_its_end.depth = at_its_end._depth_idx = 0
assert list(at_its_end) == []
"""
    )


def test_nothing_is_done_where_it_is_imported_already() -> None:
    check_in_new_python("""
import sys
import torch._dynamo
from aerofuse.inference.deferred_compiler import deferred_compiler

real = sys.modules["torch._dynamo"]
with deferred_compiler():
    assert sys.modules["torch._dynamo"] is real
assert sys.modules["torch._dynamo"] is real
""")


def test_after_an_error_the_stand_in_is_gone() -> None:
    check_in_new_python("""
import sys
import torch
from aerofuse.inference.deferred_compiler import deferred_compiler

try:
    with deferred_compiler():
        assert torch._dynamo.anything is not None
        raise KeyError
except KeyError:
    pass
import torch._dynamo
assert torch._dynamo.__file__
""")
