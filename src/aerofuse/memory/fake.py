"""Models of fake tensors, which have shapes and no memory."""

from __future__ import annotations

import copy
import gc
from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
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
    user's: in their places are some that do nothing.

    Raises `ValueError` for a model whose parameters are in shares, unless it is `gathered`: then the copy has the whole
    tensors, as the model has them while it runs.
    """

    def __init__(self, model: nn.Module, *, gathered: bool = False) -> None:
        self._mode = FakeTensorMode(allow_non_fake_inputs=True)
        self._operations = _RememberedOperations(self._mode)
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


# What an operation gives does not depend on whose step it is in, and a plan counts many steps. By the operation and the
# layouts of its arguments: fresh tensors; which argument it returns, its layout as it was; `None`: to be asked again.
_KNOWN: dict[Hashable, _Fresh | int | None] = {}
_MOST_KNOWN = 100_000  # some 50 MB

_NORMS = (
    torch.ops.aten.native_batch_norm.default,
    torch.ops.aten.native_layer_norm.default,
    torch.ops.aten.native_group_norm.default,
)


class _RememberedOperations(LightDispatchMode):
    """Answers an operation on fake tensors from memory where it was seen with arguments of the same layouts.

    A step of a large network is ten thousands of operations, and a plan takes several steps. torch's own cache of the
    same thing takes longer to look up than everything else together.
    """

    def __init__(self, mode: FakeTensorMode) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's constructor
        self._maker = FakeMaker(mode)
        if len(_KNOWN) > _MOST_KNOWN:
            _KNOWN.clear()

    def run(self, func: Callable[..., Any], args: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
        answer = self.answer(func, args, keywords)
        if answer is not None:
            return answer
        try:
            key = _key(func, args, keywords)
            is_new = key not in _KNOWN
        except TypeError:  # an argument that is no layout, or cannot be hashed
            return _ask(func, args, keywords)
        results = _ask(func, args, keywords)
        if is_new:
            _KNOWN[key] = _what_is_known(func, args, keywords, results, key)
        return results

    def answer(self, func: Callable[..., Any], args: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
        if _gives_views(func) and isinstance(args[0], FakeTensor) and args[0].constant is None:
            return self._maker.view(func, args, keywords)
        if func in _ON_KNOWN_VALUES and not keywords and _value_is_known(*args):
            return self._maker.known_value(func, args)
        try:
            known = _KNOWN.get(_key(func, args, keywords))
        except TypeError:  # as in `run`
            return None
        if isinstance(known, _Fresh):
            results = tuple(None if layout is None else self._maker.new(*layout) for layout in known.layouts)
            return results[0] if known.is_single else results
        return None if known is None else [*args, *keywords.values()][known]


def _ask(func: Callable[..., Any], args: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
    """Return what torch makes of an operation.

    Norms of lower precision whose weights are float32 save statistics in float32 on real tensors; on fake tensors of
    the CPU these have the type of the input, half as many bytes under autocast.
    """
    results = func(*args, **keywords)
    if func in _NORMS and any(isinstance(argument, Tensor) and argument.dtype is torch.float32 for argument in args):
        output, *statistics = results
        return output, *(statistic.to(torch.float32) for statistic in statistics)
    return results


@cache
def _gives_views(func: Callable[..., Any]) -> bool:
    """Return whether an operation gives one or more views of its first argument, which torch computes in no time."""
    if not isinstance(func, OpOverload) or func._schema.is_mutable or len(func._schema.returns) != 1:
        return False
    return func is torch.ops.aten._unsafe_view.default or func._schema.returns[0].alias_info is not None


# What AdamW does with its count of steps, one for each parameter: a fake tensor whose value is known.
_ON_KNOWN_VALUES = (torch.ops.aten.add_.Tensor, torch.ops.aten._local_scalar_dense.default)


def _value_is_known(tensor: Any, *others: Any) -> bool:
    is_known = isinstance(tensor, FakeTensor) and tensor.constant is not None
    return is_known and all(type(other) in (int, float) for other in others)


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
        if isinstance(argument, FakeTensor) and argument.constant is None:
            layouts.append(_layout(argument))
        elif isinstance(argument, Tensor):
            raise TypeError("a tensor with a value")
        elif kind is list or kind is tuple:
            layouts.append(tuple(_layouts(argument)))
        else:
            layouts.append((kind, argument))  # True is not 1
    return layouts


def _layout(tensor: FakeTensor) -> _Layout:
    return tensor.shape, tensor.stride(), tensor.dtype, tensor.fake_device


def _what_is_known(
    func: Any, args: Sequence[Any], keywords: Mapping[str, Any], results: Any, key: Hashable
) -> _Fresh | int | None:
    """`key` is that of the operation before it ran."""
    if not isinstance(func, OpOverload):
        return None
    if func._schema.is_mutable:
        same = (index for index, argument in enumerate([*args, *keywords.values()]) if argument is results)
        return next(same, None) if _key(func, args, keywords) == key else None
    is_single = not isinstance(results, tuple)
    storages = {argument.untyped_storage()._cdata for argument in tensors_of(args)}
    layouts: list[_Layout | None] = []
    for result in (results,) if is_single else results:
        if result is None:
            layouts.append(None)
        elif isinstance(result, FakeTensor) and _owns_its_memory(result, storages):
            storages.add(result.untyped_storage()._cdata)
            layouts.append(_layout(result))
        else:
            return None
    return _Fresh(tuple(layouts), is_single)


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
