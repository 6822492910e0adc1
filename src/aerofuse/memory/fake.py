"""Models of fake tensors, which have shapes and no memory."""

from __future__ import annotations

import copy
import gc
from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from functools import cache
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from aerofuse.memory.torch_private import (
    MODULE_HOOKS,
    VALUES_ASKED_FOR,
    FakeMaker,
    FakeTensor,
    FakeTensorMode,
    LightDispatchMode,
    OpOverload,
    is_share,
    sharded_modules_copied,
)

_NEVER = 1_000_000_000  # collections of younger objects between two full ones


class FakeCopy:
    """A deep copy of a model on fake tensors, and a context in which every new tensor is a fake one.

    Operations then compute shapes and types alone, those that they have on real tensors. Parameters and buffers
    are on the devices of the originals; those of a model on the device `meta` are on the CPU. Tensors that are
    neither parameters nor buffers are copied as they are, and may take part. Hooks are not copied, for they are the
    user's: in their places are some that do nothing. Without `mixed_precision` it is faster, and right where all that a
    norm reads has one type.

    Raises `ValueError` for a model whose parameters are in shares, unless it is `gathered`: then the copy has the whole
    tensors, as the model has them while it runs.
    """

    def __init__(self, model: nn.Module, *, mixed_precision: bool = True, gathered: bool = False) -> None:
        self._mode = FakeTensorMode(allow_non_fake_inputs=True)
        self._operations = _RememberedOperations(self._mode, mixed_precision=mixed_precision)
        with self._mode:
            # A deep copy takes from its memo what it would otherwise copy.
            tensors = chain(model.parameters(), model.buffers())
            twins = {id(tensor): _fake_twin(tensor, gathered=gathered) for tensor in tensors}
        memo = twins | without_hooks(model.modules())
        with no_full_collections(), sharded_modules_copied(model) as left_out:
            self.model = copy.deepcopy(model, memo | left_out)
        for module in self.model.modules():
            if isinstance(module, _BatchNorm) and module.momentum is None:
                module.momentum = 0.0  # else it would divide by the number of batches so far

    @contextmanager
    def active(self) -> Iterator[nn.Module]:
        """The context; may be entered again and again, and gives the copy.

        Raises `ValueError` where the model asks what a tensor's values are, which nothing knows here.
        """
        with no_full_collections(), self._mode, self._operations:
            try:
                yield self.model
            except VALUES_ASKED_FOR as error:
                raise ValueError(
                    f"{type(self.model).__name__} does what depends on the values of a tensor ({error.func}), so that "
                    "its memory is not known before it runs: it can be counted on real tensors, but not planned for"
                ) from error


@contextmanager
def no_full_collections() -> Iterator[None]:
    """Leave old objects out of garbage collections: a step makes so many that whole heaps would be searched often."""
    young, middle, old = gc.get_threshold()
    gc.set_threshold(young, middle, _NEVER)
    try:
        yield
    finally:
        gc.set_threshold(young, middle, old)


def without_hooks(modules: Iterable[nn.Module]) -> dict[int, Any]:
    """Return a memo for `copy.deepcopy`: in place of each hook of these modules the copy has one that does nothing."""
    tables = (getattr(module, name) for module in modules for name in MODULE_HOOKS)
    return {id(table): OrderedDict.fromkeys(table, _do_nothing) for table in tables}


def _do_nothing(*_: object) -> None:
    return None


def _fake_twin(tensor: Tensor, *, gathered: bool) -> Tensor:
    if is_share(tensor) and not gathered:
        raise ValueError(
            "the model's parameters are in shares (DTensor): count and plan before it is sharded, then apply the plan"
        )
    device = torch.device("cpu") if tensor.is_meta else tensor.device
    twin = torch.empty_strided(tensor.size(), tensor.stride(), dtype=tensor.dtype, device=device)
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(twin, tensor.requires_grad)
    return twin.requires_grad_(tensor.requires_grad)  # `functional_call` puts others in the places of parameters


_Layout = tuple[torch.Size, tuple[int, ...], torch.dtype, torch.device]


@dataclass(frozen=True)
class _Fresh:
    """The layouts of results that share no memory with anything: one, or several of which some may be `None`."""

    layouts: tuple[_Layout | None, ...]
    is_single: bool


class _Known(Enum):
    """What else is known of an operation on arguments of given layouts."""

    IN_PLACE = "the first argument itself, its layout as it was"
    OUT = "the last argument itself, its layout as it was"
    NOTHING = "to be asked again each time"


_NORMS = (
    torch.ops.aten.native_batch_norm.default,
    torch.ops.aten.native_layer_norm.default,
    torch.ops.aten.native_group_norm.default,
)


# By `mixed_precision`. What an operation gives does not depend on whose step it is in: a plan counts many steps.
_KNOWN: dict[bool, dict[Hashable, _Fresh | _Known]] = {False: {}, True: {}}
_MOST_KNOWN = 100_000  # some 50 MB


class _RememberedOperations(LightDispatchMode):
    """Answers an operation on fake tensors from memory where it was seen with arguments of the same layouts.

    A step of a large network is ten thousands of operations, and a plan takes several steps. torch's own cache of the
    same thing takes longer to look up than everything else together.

    With `mixed_precision`, norms are given the statistics in float32 that they save on real tensors where their
    weights are float32. On fake tensors of the CPU they have the type of the input, half as many bytes under autocast.
    """

    def __init__(self, mode: FakeTensorMode, *, mixed_precision: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's constructor
        self._maker = FakeMaker(mode)
        self._mixed_precision = mixed_precision
        self._known = _KNOWN[mixed_precision]
        if len(self._known) > _MOST_KNOWN:
            self._known.clear()

    def run(self, func: Callable[..., Any], args: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
        answer = self.answer(func, args, keywords)
        if answer is not None:
            return answer
        try:
            key = _key(func, args, keywords)
            is_new = key not in self._known
        except TypeError:  # an argument that is no layout, or cannot be hashed
            return self._ask(func, args, keywords)
        results = self._ask(func, args, keywords)
        if is_new:
            self._known[key] = _what_is_known(func, args, keywords, results, key)
        return results

    def answer(self, func: Callable[..., Any], args: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
        if _gives_views(func) and isinstance(args[0], FakeTensor) and args[0].constant is None:
            return self._maker.view(func, args, keywords)
        try:
            known = self._known.get(_key(func, args, keywords))
        except TypeError:  # as in `run`
            return None
        if isinstance(known, _Fresh):
            results = tuple(None if layout is None else self._maker.new(*layout) for layout in known.layouts)
            return results[0] if known.is_single else results
        if known is _Known.IN_PLACE:
            return args[0]
        return list(keywords.values())[-1] if known is _Known.OUT else None

    def _ask(self, func: Callable[..., Any], args: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
        results = func(*args, **keywords)
        full = any(isinstance(argument, Tensor) and argument.dtype is torch.float32 for argument in args)
        if self._mixed_precision and full and func in _NORMS:
            output, *statistics = results
            return output, *(statistic.to(torch.float32) for statistic in statistics)
        return results


@cache
def _gives_views(func: Callable[..., Any]) -> bool:
    """Return whether an operation gives one or more views of its first argument, which torch computes in no time."""
    if not isinstance(func, OpOverload) or func._schema.is_mutable or len(func._schema.returns) != 1:
        return False
    return func is torch.ops.aten._unsafe_view.default or func._schema.returns[0].alias_info is not None


# They write in place, and the layout does not depend on the number: a rate of dropout, another one in each block.
_ANY_NUMBER = (torch.ops.aten.bernoulli_.float, torch.ops.aten.div_.Tensor, torch.ops.aten.div_.Scalar)


def _key(func: Callable[..., Any], args: Sequence[Any], keywords: Mapping[str, Any]) -> Hashable:
    """Return what the results of an operation depend on. Raises `TypeError` for a tensor whose value may count."""
    if func in _ANY_NUMBER:
        args = [float if type(argument) is float else argument for argument in args]
    return (func, *_layouts(args), *_layouts(keywords.items())) if keywords else (func, *_layouts(args))


def _layouts(arguments: Iterable[Any]) -> list[Hashable]:
    layouts: list[Hashable] = []
    for argument in arguments:
        kind = type(argument)
        if kind is FakeTensor and argument.constant is None:
            layouts.append((argument.shape, argument.stride(), argument.dtype, argument._fake_device))
        elif isinstance(argument, Tensor):
            if not isinstance(argument, FakeTensor) or argument.constant is not None:
                raise TypeError("a tensor with a value")
            layouts.append((argument.shape, argument.stride(), argument.dtype, argument.fake_device))
        elif kind is list or kind is tuple:
            layouts.append(tuple(_layouts(argument)))
        else:
            layouts.append((kind, argument))  # True is not 1
    return layouts


def _what_is_known(
    func: Any, args: Sequence[Any], keywords: Mapping[str, Any], results: Any, key: Hashable
) -> _Fresh | _Known:
    """`key` is that of the operation before it ran."""
    if not isinstance(func, OpOverload):
        return _Known.NOTHING
    first = args[0] if args else None
    if func._schema.is_mutable:
        if not isinstance(results, FakeTensor) or _key(func, args, keywords) != key:
            return _Known.NOTHING
        if results is first:
            return _Known.IN_PLACE
        return _Known.OUT if keywords and results is list(keywords.values())[-1] else _Known.NOTHING
    if not isinstance(results, (FakeTensor, tuple)):
        return _Known.NOTHING
    layouts: list[_Layout | None] = []
    storages = {argument.untyped_storage()._cdata for argument in tensors_of(args)}
    for result in results if isinstance(results, tuple) else (results,):
        if result is None:
            layouts.append(None)
            continue
        if not isinstance(result, FakeTensor) or not _owns_its_memory(result, storages):
            return _Known.NOTHING
        storages.add(result.untyped_storage()._cdata)
        layouts.append((result.shape, result.stride(), result.dtype, result.fake_device))
    return _Fresh(tuple(layouts), not isinstance(results, tuple))


def _owns_its_memory(tensor: Tensor, others: Collection[int]) -> bool:
    storage = tensor.untyped_storage()
    last = sum((size - 1) * stride for size, stride in zip(tensor.size(), tensor.stride(), strict=True))
    num_elements = last + 1 if tensor.numel() else 0
    return storage._cdata not in others and storage.nbytes() == num_elements * tensor.element_size()


def tensors_of(arguments: Iterable[Any]) -> Iterator[Tensor]:
    """Yield the tensors among the arguments of a call, and in lists of them."""
    for argument in arguments:
        if isinstance(argument, Tensor):
            yield argument
        elif isinstance(argument, (list, tuple)):
            yield from tensors_of(argument)
