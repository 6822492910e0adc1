"""Times and memory, as the stages record them. They differ from run to run, so they stay out of the metrics."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

_MEMORY = "memory"


@dataclass(frozen=True)
class EvaluationTimes:
    """`reports/times/evaluate_<model>.json`: the size of a model and its time per image at batch 1.

    `busy_elsewhere` is the share of the processors' time that other programs took meanwhile, here and below.
    """

    latency_ms: float
    latency_p95_ms: float
    device: str
    busy_elsewhere: float
    parameters: int
    image_size: int

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the file. Raises `FileNotFoundError`, or `ValueError` where the file holds anything else."""
        return cls(**_read(path, [field.name for field in fields(cls)]))


@dataclass(frozen=True)
class TrainingTimes:
    """`reports/times/<training stage>.json`; `images` are counted once per epoch.

    `views` is how often the backbones saw each photo: once per epoch, or less where heads learned from features.
    `peak_memory_bytes` is the peak of the allocator of a GPU, None where there was none. `seconds_saving_state` is not
    part of `seconds`. `seconds_seeing_photos` is: in these, frozen backbones saw each photo a few times, and heads then
    learned from features. `resumed` says how often the training went on after it had been stopped. The file's further
    part, `memory`, is a `MemoryRecord`.
    """

    seconds: float
    seconds_seeing_photos: float
    epochs: int
    views: int
    images: int
    images_per_second: float
    device: str
    busy_elsewhere: float
    peak_memory_bytes: int | None
    seconds_saving_state: float
    resumed: int

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the file. Raises `FileNotFoundError`, or `ValueError` where the file holds anything else."""
        names = [field.name for field in fields(cls)]
        content = _read(path, names, optional=_MEMORY)
        return cls(**{name: content[name] for name in names})

    @property
    def images_seen(self) -> float:
        """Return how many images the backbones saw."""
        return self.images * self.views / self.epochs

    @classmethod
    def total(cls, phases: Sequence[TrainingTimes]) -> Self:
        """Return several phases of one model as one training; peak and `busy_elsewhere` are their highest.

        Its images per second are those that the backbones saw.
        """
        # Not images / seconds: a stage's speed leaves out what it does besides training, such as validation.
        training_seconds = sum(phase.images / phase.images_per_second for phase in phases)
        peaks = [phase.peak_memory_bytes for phase in phases if phase.peak_memory_bytes is not None]
        return cls(
            seconds=sum(phase.seconds for phase in phases),
            seconds_seeing_photos=sum(phase.seconds_seeing_photos for phase in phases),
            epochs=sum(phase.epochs for phase in phases),
            views=sum(phase.views for phase in phases),
            images=sum(phase.images for phase in phases),
            images_per_second=sum(phase.images_seen for phase in phases) / training_seconds,
            device=", ".join(dict.fromkeys(phase.device for phase in phases)),
            busy_elsewhere=max(phase.busy_elsewhere for phase in phases),
            peak_memory_bytes=max(peaks, default=None),
            seconds_saving_state=sum(phase.seconds_saving_state for phase in phases),
            resumed=sum(phase.resumed for phase in phases),
        )


@dataclass(frozen=True)
class MemoryRecord:
    """What `reports/times/<training stage>.json` says under `memory`: what a step of `batch_size` images holds.

    `predicted_peak_bytes` was counted before the training, of `available_bytes` that a step could have taken;
    `peak_bytes` is that of the training, as said in `measured`: by the allocator, or counted in one step.
    `policy` says what was saved for the backward pass, `advice` what would pay; it may be empty.
    """

    batch_size: int
    predicted_peak_bytes: int
    peak_bytes: int | None
    measured: str
    available_bytes: int
    policy: str
    advice: str

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the part. Raises `FileNotFoundError`, or `ValueError` where the file has no such part."""
        found = cls.find(path)
        if found is None:
            raise ValueError(f"{path} has no {_MEMORY!r}; `dvc repro --force {_target(path)}` writes it")
        return found

    @classmethod
    def find(cls, path: Path) -> Self | None:
        """Read the part, `None` where there is none. Raises `FileNotFoundError`, or `ValueError` for another file."""
        content = _read(path, [field.name for field in fields(TrainingTimes)], optional=_MEMORY).get(_MEMORY)
        if content is None:
            return None
        names = [field.name for field in fields(cls)]
        if set(content) != set(names):
            raise ValueError(
                f"{_MEMORY!r} in {path} must hold exactly {', '.join(names)}; it holds {', '.join(content)}; "
                f"`dvc repro --force {_target(path)}` writes it"
            )
        return cls(**content)


def _read(path: Path, names: Sequence[str], optional: str | None = None) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"no times at {path}; `dvc repro {_target(path)}` makes them")
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict) or set(content) - {optional} != set(names):
        raise ValueError(f"{path} must hold exactly {', '.join(names)}; it holds {', '.join(content)}")
    return content


def _target(path: Path) -> str:
    """Return the stage of dvc.yaml that writes a file of times."""
    kind, _, name = path.stem.partition("_")
    if kind == "evaluate":
        return f"evaluate@{name}"
    return f"{'train_hybrid' if name.startswith('stage_') else 'train_baseline'}@{name}"
