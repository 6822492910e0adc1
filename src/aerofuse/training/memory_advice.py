"""Whether a larger batch, or no checkpointing, would fit: advice in plain words."""

from __future__ import annotations

from dataclasses import dataclass

_CLEARLY_LARGER = 1.5  # times the batch; less is not worth the change
_HARDLY_SMALLER = 0.5  # times the batch; for less than that, checkpointing is the better choice
_ROUND = 8  # batches are multiples of it where they can be


@dataclass(frozen=True)
class Outlook:
    """What a step of `batch_size` images holds on a device that has `available_bytes` for it.

    `fixed_bytes` are there whatever the batch: parameters, optimiser state; `gradient_bytes` too, at some time.
    `peak_bytes` is the least that is known to be possible with what is checkpointed now or might be,
    `unchecked_peak_bytes` the peak without checkpointing. `checkpointing` says whether anything is computed again.
    """

    available_bytes: int
    fixed_bytes: int
    gradient_bytes: int
    batch_size: int
    largest_batch_size: int
    peak_bytes: int
    unchecked_peak_bytes: int
    checkpointing: bool


def advise(outlook: Outlook) -> str:
    """Such as `batch 48 fits; checkpointing could be off at batch 16`; empty where nothing pays.

    Batches are extrapolated from the one that was counted, on the careful side.
    """
    sentences = []
    larger = _rounded(_batch_within(outlook, outlook.peak_bytes, 0), outlook.largest_batch_size)
    if larger >= _CLEARLY_LARGER * outlook.batch_size:
        sentences.append(f"batch {larger} fits")
    if outlook.checkpointing and outlook.unchecked_peak_bytes <= outlook.available_bytes:
        sentences.append(f"checkpointing could be off: batch {outlook.batch_size} fits without it")
    elif outlook.checkpointing:
        # Of a smaller batch the gradients are as large, which a line through the fixed bytes alone would forget.
        smaller = _rounded(
            _batch_within(outlook, outlook.unchecked_peak_bytes, outlook.gradient_bytes), outlook.batch_size
        )
        if smaller >= max(1, _HARDLY_SMALLER * outlook.batch_size):
            sentences.append(f"checkpointing could be off at batch {smaller}")
    return "; ".join(sentences)


def _batch_within(outlook: Outlook, peak_bytes: int, gradient_bytes: int) -> int:
    """The batch that holds what is available, where the current one holds `peak_bytes`; 0 where none does."""
    fixed_bytes = outlook.fixed_bytes + gradient_bytes
    growing_bytes, room_bytes = peak_bytes - fixed_bytes, outlook.available_bytes - fixed_bytes
    return outlook.batch_size * room_bytes // growing_bytes if min(growing_bytes, room_bytes) > 0 else 0


def _rounded(batch_size: int, largest: int) -> int:
    """A batch of at most `largest`, which itself needs no rounding."""
    if batch_size >= largest:
        return largest
    return batch_size // _ROUND * _ROUND or batch_size
