"""The autocast and RNG snapshot that a computation is done again with, for the same bits; running statistics."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Autocast:
    """Which automatic casts were on, per type of device."""

    settings: tuple[tuple[str, bool, torch.dtype], ...]

    @classmethod
    def capture(cls, device: torch.device) -> Self:
        """Return the casts in force now, on `device` and on the CPU."""
        kinds = dict.fromkeys(("cpu", device.type))
        return cls(tuple((kind, torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)) for kind in kinds))

    def lower_precision(self, device: torch.device) -> torch.dtype | None:
        """Return the type that matrix products on `device` are cast to; `None` where they are not."""
        for kind, enabled, dtype in self.settings:
            if kind == device.type and enabled:
                return dtype
        return None

    def restored(self, *, cache: bool) -> AbstractContextManager[None]:
        """Return the casts as they were. `cache`: keep cast weights for the length of the block."""
        if not any(enabled or torch.is_autocast_enabled(kind) for kind, enabled, _ in self.settings):
            return nullcontext()  # a backward pass comes here for every saved tensor
        return self._restored(cache)

    @contextmanager
    def _restored(self, cache: bool) -> Iterator[None]:
        with ExitStack() as stack:
            for kind, enabled, dtype in self.settings:
                if enabled or torch.is_autocast_enabled(kind):
                    stack.enter_context(torch.autocast(kind, dtype=dtype, enabled=enabled, cache_enabled=cache))
            yield


@dataclass(frozen=True)
class RandomState:
    """The state of the random generators of the CPU and of one device."""

    cpu: Tensor
    device: torch.device
    device_state: Tensor | None

    @classmethod
    def capture(cls, device: torch.device) -> Self:
        """Return the state now."""
        other = None if device.type in ("cpu", "meta") else torch.get_device_module(device).get_rng_state(device)
        return cls(torch.get_rng_state(), device, other)

    @contextmanager
    def replayed(self) -> Iterator[None]:
        """Draw again what was drawn from here on; afterwards the generators go on as if nothing had been drawn."""
        before = RandomState.capture(self.device)
        self.restore()
        try:
            yield
        finally:
            before.restore()

    def restore(self) -> None:
        """Go on from this state."""
        torch.set_rng_state(self.cpu)
        if self.device_state is not None:
            torch.get_device_module(self.device).set_rng_state(self.device_state, self.device)


_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def running_statistics(modules: Iterable[nn.Module]) -> list[Tensor]:
    """Return the buffers that normalisation layers among the given modules update in training mode, each once."""
    return [
        buffer
        for module in dict.fromkeys(modules)
        if vars(module).get("track_running_stats")  # `getattr` is slow where there is none
        for name in _STATISTICS
        if (buffer := module._buffers.get(name)) is not None
    ]
