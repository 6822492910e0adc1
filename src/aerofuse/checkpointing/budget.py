"""How a memory budget is written: bytes, a size with a unit, or a share of what is needed without checkpointing."""

from __future__ import annotations

import re
from dataclasses import dataclass
from numbers import Integral, Real

_UNITS = {
    "b": 1,
    **{f"{letter}b": 1000**power for power, letter in enumerate("kmgt", start=1)},
    **{f"{letter}ib": 1024**power for power, letter in enumerate("kmgt", start=1)},
}
_NAMES = "B, kB, MB, GB, TB, KiB, MiB, GiB, TiB"


@dataclass(frozen=True)
class Budget:
    """A limit on memory; one of the two is given.

    `num_bytes` limits everything that a step takes at once: parameters, gradients, optimiser state, inputs,
    activations and temporaries. `share` limits activations and temporaries, to that share of their peak without
    checkpointing.
    """

    num_bytes: int | None = None
    share: float | None = None

    def __str__(self) -> str:
        """As a person writes it."""
        return format_bytes(self.num_bytes or 0) if self.share is None else f"{100 * self.share:.4g}%"


def parse_budget(value: object) -> Budget:
    """`6 * 2**30`, `"6 GiB"`, or `0.5`, also as numbers of NumPy. Raises `ValueError` for anything else."""
    if isinstance(value, Budget):
        return value
    if isinstance(value, Integral) and int(value) > 1:
        return Budget(num_bytes=int(value))
    if isinstance(value, Real) and not isinstance(value, Integral) and 0 < float(value) <= 1:
        return Budget(share=float(value))
    if isinstance(value, str):
        return Budget(num_bytes=parse_bytes(value))
    raise ValueError(
        "a memory budget is a number of bytes, a size such as '6 GiB', or a share from 0 to 1 such as 0.5, "
        f"not {value!r}"
    )


def parse_bytes(text: str) -> int:
    """Return the bytes of a size such as `6 GiB`, `500MB`. Raises `ValueError` for an unknown unit, or none."""
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([A-Za-z]+)\s*", text)
    if match is None or match[2].lower() not in _UNITS:
        raise ValueError(f"{text!r} is no size; write a number and one of {_NAMES}, such as '6 GiB'")
    num_bytes = int(float(match[1]) * _UNITS[match[2].lower()])
    if num_bytes < 1:
        raise ValueError(f"{text!r} is less than one byte")
    return num_bytes


def format_bytes(num_bytes: float) -> str:
    """Return such as `6.00 GiB`."""
    for unit in ("B", "KiB", "MiB"):
        if abs(num_bytes) < 1000:
            return f"{num_bytes:.0f} {unit}" if unit == "B" else f"{num_bytes:.3g} {unit}"
        num_bytes /= 1024
    return f"{num_bytes:.2f} GiB"
