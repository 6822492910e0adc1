"""The private parts of torch that this project leans on, all of them; no other file imports any."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Self, TypeVar

import torch
from torch import Tensor, nn

# The parts of `torch.compiler` that need no import of the compiler.
from torch._C._dynamo.eval_frame import _FrameAction, _FrameExecStrategy, set_code_exec_strategy, set_eval_frame
from torch._ops import OpOverload

# Tensors of the device `meta` are the public ones without memory, but they do not know the device that they stand
# for; and a mode is the only thing that sees every operation, those of the backward included.
from torch._subclasses import FakeTensor, FakeTensorMode
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    UnsupportedOperatorException,
)
from torch.overrides import _get_current_function_mode as current_function_mode
from torch.overrides import _pop_mode_temporarily as current_function_mode_off
from torch.utils._python_dispatch import TorchDispatchMode, _get_current_dispatch_mode
from torch.utils._python_dispatch import _disable_current_modes as all_modes_off
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

__all__ = [
    "MODULE_HOOKS",
    "VALUES_ASKED_FOR",
    "FakeMaker",
    "FakeTensor",
    "FakeTensorMode",
    "LightDispatchMode",
    "OpOverload",
    "all_modes_off",
    "call_compiled",
    "current_function_mode",
    "current_function_mode_off",
    "in_backward",
    "in_function_transform",
    "is_compiled",
    "is_compiled_wrapper",
    "is_inductor",
    "is_share",
    "never_compiled",
    "num_owners",
    "outside_of_compiler",
    "saved_tensor_hooks",
    "sharded_modules_copied",
    "tree_flatten",
    "tree_map",
    "tree_unflatten",
    "value_checks_off",
]


F = TypeVar("F", bound=Callable[..., Any])

# Of a module: the names of the dictionaries of what is called with it.
MODULE_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")

_DEVICE_OF = torch.ops.prim.device.default


# What operations on fake tensors raise whose result, or its shape, depends on values; each has the operation as `func`.
VALUES_ASKED_FOR = (DataDependentOutputException, DynamicOutputShapeException, UnsupportedOperatorException)


class LightDispatchMode(TorchDispatchMode, ABC):
    """A dispatch mode that never runs inside of a compiled function, so that its calls need no guard against that.

    One that is entered right above another asks it for an answer directly, without a second way through the dispatcher.
    """

    _below: LightDispatchMode | None = None

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # torch would wrap every call, which takes longer than counting does

    def __enter__(self) -> Self:
        below = _get_current_dispatch_mode()
        self._below = below if isinstance(below, LightDispatchMode) else None
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        """Hand an operation to `run`, unless it only asks a fake tensor for its device.

        autograd does so thrice per operation. Handed on to the next mode, the question takes as long as an operation.
        """
        if func is _DEVICE_OF and isinstance(args[0], FakeTensor):
            return args[0].fake_device
        return self.run(func, args, kwargs or {})

    @abstractmethod
    def run(self, func: Callable[..., Any], args: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
        """Return the results of an operation, `func(*args, **keywords)`."""

    def hand_on(self, func: Callable[..., Any], args: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
        """Return what the next mode makes of an operation."""
        answer = None if self._below is None else self._below.answer(func, args, keywords)
        return func(*args, **keywords) if answer is None else answer

    def answer(self, func: Callable[..., Any], args: Sequence[Any], keywords: Mapping[str, Any]) -> Any:  # noqa: ARG002
        """Return the results of an operation where they are known without asking further, else `None`."""
        return None


class FakeMaker:
    """Makes fake tensors of one mode in a fifth of the time that the constructor takes, which is most of a step's."""

    def __init__(self, mode: FakeTensorMode) -> None:
        self._mode = mode
        self._attributes: dict[torch.device, dict[str, Any]] = {}
        self._guard_data = (
            torch._C._set_warn_deprecated_on_mutable_data_ptr
            if mode._allow_unsafe_data_ptr_access
            else torch._C._set_throw_on_mutable_data_ptr
        )

    def new(self, size: Sequence[int], stride: Sequence[int], dtype: torch.dtype, device: torch.device) -> FakeTensor:
        """Return a fake tensor of that layout with its own storage."""
        with torch._C._DisableTorchDispatch():
            return self._wrap(torch.empty_strided(size, stride, dtype=dtype, device="meta"), device)

    def view(
        self, func: Callable[..., Any], args: Sequence[Any], keywords: Mapping[str, Any]
    ) -> FakeTensor | list[FakeTensor]:
        """Return the result of an operation that gives one or more views of its first argument, a fake tensor."""
        mode = self._mode
        with torch._C._DisableTorchDispatch():
            # As torch's `in_kernel_invocation_manager` has it.
            mode.in_kernel_invocation = True
            try:
                with torch._C._PreserveDispatchKeyGuard():
                    torch._C._set_meta_in_tls_dispatch_include(True)
                    views = func(*args, **keywords)
            finally:
                mode.in_kernel_invocation = False
            device = args[0].fake_device
            if isinstance(views, list):
                return [self._wrap(view, device) for view in views]
            return self._wrap(views, device)

    def known_value(self, func: Callable[..., Any], args: Sequence[Any]) -> Any:
        """Return the result of an operation on a fake tensor whose value is known, and on numbers.

        What is written to it is known then, too.
        """
        fake = args[0]
        with torch._C._DisableTorchDispatch():
            result = func(fake.constant, *args[1:])
        return fake if result is fake.constant else result

    def _wrap(self, plain: Tensor, device: torch.device) -> FakeTensor:
        attributes = self._attributes.get(device)
        if attributes is None:
            first = FakeTensor(self._mode, plain, device)
            self._attributes[device] = dict(vars(first))
            return first
        fake = Tensor._make_subclass(FakeTensor, plain, False, dispatch_device=True, device_for_backend_keys=device)
        self._guard_data(fake)
        vars(fake).update(attributes)
        return fake


def is_share(tensor: Tensor) -> bool:
    """Return whether a tensor is one process's share of a larger one, as `fully_shard` makes them."""
    # The module takes a second to import, and where nobody has imported it there are no shares.
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


@contextmanager
def sharded_modules_copied(model: nn.Module) -> Iterator[dict[int, Any]]:
    """Let `copy.deepcopy` copy modules that `fully_shard` has changed, as what they were before.

    For the length of the block they have their own classes. Gives the memo that leaves out what sharding has added.
    """
    fsdp = sys.modules.get("torch.distributed.fsdp")
    sharded = [module for module in model.modules() if fsdp is not None and isinstance(module, fsdp.FSDPModule)]
    classes = [type(module) for module in sharded]
    for module, changed in zip(sharded, classes, strict=True):
        module.__class__ = changed.__bases__[1]  # before it stands what FSDP adds
    added = (value for module in sharded for key, value in vars(module).items() if "__composable_api" in str(key))
    try:
        yield {id(value): {} for value in added}
    finally:
        for module, changed in zip(sharded, classes, strict=True):
            module.__class__ = changed


@contextmanager
def value_checks_off() -> Iterator[None]:
    """Leave out the checks of a network that torch makes on the device; one that fails there ends the process."""
    check = torch._assert_async
    torch._assert_async = lambda *_: None
    try:
        yield
    finally:
        torch._assert_async = check


def in_backward() -> bool:
    """Return whether this thread is inside a backward pass."""
    # Public hooks can tell it, but they would have to be attached to the model's graph.
    return torch._C._current_graph_task_id() != -1


def num_owners(tensor: Tensor) -> int:
    """Return how many tensors share the memory of `tensor`, itself among them."""
    # There is no public count. The second reference is that of the storage's own Python object.
    storage = tensor.untyped_storage()
    return int(torch._C._storage_Use_Count(storage._cdata)) - 1


def in_function_transform() -> bool:
    """Return whether a transform of `torch.func`, such as `grad` or `vmap`, is running."""
    return torch._C._are_functorch_transforms_active()


def is_compiled(module: nn.Module) -> bool:
    """Return whether a module has compiled itself."""
    return module._compiled_call_impl is not None


def is_compiled_wrapper(module: nn.Module) -> bool:
    """Return whether a module is what `torch.compile` has made of another one."""
    return type(module).__name__ == "OptimizedModule"  # to import the class takes seconds


def outside_of_compiler(method: Callable[..., Any]) -> Callable[..., Any]:
    """Let a method run uncompiled, with all that it calls. It gets the compiler around it, or `None`, after `self`."""

    def run(self: Any, *args: Any) -> Any:
        compiler = set_eval_frame(None)
        try:
            return method(self, compiler, *args)
        finally:
            set_eval_frame(compiler)

    # As `torch.compiler.disable(recursive=False)` does, whose import takes seconds.
    run._torchdynamo_disable = True  # type: ignore[attr-defined]
    run._torchdynamo_disable_msg = "gradient checkpointing compiles each unit alone"  # type: ignore[attr-defined]
    set_code_exec_strategy(run.__code__, _FrameExecStrategy(_FrameAction.SKIP, _FrameAction.DEFAULT))
    return run


def never_compiled(function: F) -> F:
    """Mark a function that compiled code calls by way of autograd, where a compiler sees it, and all that it calls."""
    set_code_exec_strategy(function.__code__, _FrameExecStrategy(_FrameAction.SKIP, _FrameAction.SKIP))
    return function


def call_compiled(compiler: Any, function: Callable[..., Any], *args: Any) -> Any:
    """Return `function(*args)`, compiled by what `outside_of_compiler` has given."""
    # Nothing else may run in between: it would be compiled, too.
    before = set_eval_frame(compiler)
    try:
        return function(*args)
    finally:
        set_eval_frame(before)


def is_inductor(compiler: Any) -> bool:
    """Return whether what `outside_of_compiler` has given is torch's own compiler."""
    while (inner := getattr(compiler, "_torchdynamo_orig_backend", None)) is not None:
        compiler = inner
    return getattr(compiler, "compiler_name", None) == "inductor"


def saved_tensor_hooks() -> tuple[Callable[[Tensor], Any], Callable[[Any], Tensor]] | None:
    """Return the innermost hooks on saved tensors, to pack and to unpack."""
    # The public context manager sets them, and nothing tells them.
    return torch._C._autograd._top_saved_tensors_default_hooks(True)
