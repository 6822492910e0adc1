"""Which storages are alive, and how many bytes they hold."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from torch import Tensor, UntypedStorage

from aerofuse.memory.kinds import Kind


@dataclass(slots=True)
class _Entry:
    reference: weakref.ref[UntypedStorage]
    kind: Kind
    num_bytes: int


class LiveStorages:
    """The storages of the tensors that were noted and still live, each once and at its full size.

    Storages are held weakly: they leave when their last tensor does, wherever it was held.
    """

    def __init__(self) -> None:
        self._entries: dict[int, _Entry] = {}
        self._bytes = dict.fromkeys(Kind, 0)

    @property
    def bytes_by_kind(self) -> Mapping[Kind, int]:
        """Bytes alive now, a copy."""
        return dict(self._bytes)

    @property
    def total_bytes(self) -> int:
        """Bytes alive now, of all kinds."""
        return sum(self._bytes.values())

    @property
    def activation_bytes(self) -> int:
        """Bytes of activations and temporaries alive now."""
        return self._bytes[Kind.ACTIVATIONS] + self._bytes[Kind.TEMPORARIES]

    def note(self, tensor: Tensor, kind: Kind) -> bool:
        """Count the storage of `tensor` under `kind` if it is new, or has grown; whether there are more bytes now."""
        storage = tensor.untyped_storage()
        num_bytes = storage.nbytes()
        entry = self._entries.get(id(storage))
        if entry is None:
            key = id(storage)
            self._entries[key] = _Entry(weakref.ref(storage, partial(self._forget, key)), kind, num_bytes)
            self._bytes[kind] += num_bytes
            return num_bytes > 0
        growth = num_bytes - entry.num_bytes
        self._bytes[entry.kind] += growth
        entry.num_bytes = num_bytes
        return growth > 0

    def reclassify(self, tensor: Tensor, kind: Kind) -> None:
        """Count the storage of `tensor` under `kind` from now on, whether it was known or not."""
        self.note(tensor, kind)
        entry = self._entries[id(tensor.untyped_storage())]
        self._bytes[entry.kind] -= entry.num_bytes
        self._bytes[kind] += entry.num_bytes
        entry.kind = kind

    def stop(self) -> None:
        """Follow the storages no longer; the sums stay as they are."""
        self._entries.clear()

    def _forget(self, key: int, _reference: weakref.ref[UntypedStorage]) -> None:
        entry = self._entries.pop(key)
        self._bytes[entry.kind] -= entry.num_bytes
