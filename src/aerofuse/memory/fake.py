"""Models of fake tensors, which have shapes and no memory."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from aerofuse.memory.torch_private import VALUES_ASKED_FOR, FakeTensorMode, LightDispatchMode


class FakeCopy:
    """A deep copy of a model on fake tensors, and a context in which every new tensor is a fake one.

    Operations then compute shapes and types alone, those that they have on real tensors. Parameters and buffers
    are on the devices of the originals; those of a model on the device `meta` are on the CPU. Tensors that are
    neither parameters nor buffers are copied as they are, and may take part. Without `mixed_precision` it is faster,
    and right where all that a norm reads has one type.
    """

    def __init__(self, model: nn.Module, *, mixed_precision: bool = True) -> None:
        self._mode = FakeTensorMode(allow_non_fake_inputs=True)
        self._mixed_precision = mixed_precision
        with self._mode:
            # A deep copy takes from its memo what it would otherwise copy.
            memo = {id(tensor): _fake_twin(tensor) for tensor in chain(model.parameters(), model.buffers())}
        self.model = copy.deepcopy(model, memo)

    @contextmanager
    def active(self) -> Iterator[nn.Module]:
        """The context; may be entered again and again, and gives the copy.

        Raises `ValueError` where the model asks what a tensor's values are, which nothing knows here.
        """
        with ExitStack() as modes:
            modes.enter_context(self._mode)
            if self._mixed_precision:
                modes.enter_context(_MixedPrecisionNorms())  # type: ignore[no-untyped-call]  # torch's constructor
            try:
                yield self.model
            except VALUES_ASKED_FOR as error:
                raise ValueError(
                    f"{type(self.model).__name__} does what depends on the values of a tensor ({error.func}), so that "
                    "its memory is not known before it runs: it can be counted on real tensors, but not planned for"
                ) from error


def _fake_twin(tensor: Tensor) -> Tensor:
    device = torch.device("cpu") if tensor.is_meta else tensor.device
    twin = torch.empty_strided(tensor.size(), tensor.stride(), dtype=tensor.dtype, device=device)
    return nn.Parameter(twin, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else twin


class _MixedPrecisionNorms(LightDispatchMode):
    """Gives norms the statistics in float32 that they save on real tensors where their weights are float32.

    On fake tensors of the CPU they have the type of the input, half as many bytes under autocast.
    """

    _NORMS = (
        torch.ops.aten.native_batch_norm.default,
        torch.ops.aten.native_layer_norm.default,
        torch.ops.aten.native_group_norm.default,
    )

    def run(self, func: Callable[..., Any], args: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
        results = func(*args, **keywords)
        if func in self._NORMS and any(isinstance(arg, Tensor) and arg.dtype is torch.float32 for arg in args):
            output, *statistics = results
            return output, *(statistic.to(torch.float32) for statistic in statistics)
        return results
