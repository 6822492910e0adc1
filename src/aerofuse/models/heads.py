"""The four heads, and the temperatures that calibrate their logits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from aerofuse.data.labels import CLASSIFICATION_TASKS, REGRESSION_TASKS, TASKS, ClassLists


class ClassificationHead(nn.Sequential):
    """Features `[B, D]` to logits `[B, num_classes]`."""

    def __init__(self, num_features: int, num_classes: int, dropout: float) -> None:
        super().__init__(nn.Dropout(dropout), nn.Linear(num_features, num_classes))


class RegressionHead(nn.Module):
    """Features `[B, D]` to a value `[B]` in 0..1."""

    def __init__(self, num_features: int, dropout: float, hidden_features: int = 64) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(num_features, hidden_features),
            nn.ReLU(),
            nn.Linear(hidden_features, 1),
            nn.Sigmoid(),
        )

    def forward(self, features: Tensor) -> Tensor:
        value: Tensor = self.layers(features)
        return value.squeeze(-1)


class Heads(nn.Module):
    """One head per task: features `[B, D]` to `{task: logits [B, C] or value [B]}`.

    Raises `ValueError` for a task that does not exist.
    """

    def __init__(self, num_features: int, classes: ClassLists, tasks: Sequence[str], dropout: float) -> None:
        unknown = set(tasks) - set(TASKS)
        if unknown or not tasks:
            raise ValueError(f"tasks are {list(tasks)}; there are {', '.join(TASKS)}")
        super().__init__()
        num_classes = dict(zip(CLASSIFICATION_TASKS, (len(classes.types), len(classes.airlines)), strict=True))
        self.tasks = tuple(tasks)
        for task in tasks:
            head: nn.Module
            if task in REGRESSION_TASKS:
                head = RegressionHead(num_features, dropout)
            else:
                head = ClassificationHead(num_features, num_classes[task], dropout)
            self.add_module(_module_name(task), head)

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        return {task: self.get_submodule(_module_name(task))(features) for task in self.tasks}


def _module_name(task: str) -> str:
    # Every module has a method `type` already.
    return f"{task}_head"


def scale_logits(outputs: Mapping[str, Tensor], temperatures: Mapping[str, float]) -> dict[str, Tensor]:
    """The outputs of a model `{task: logits [B, C] or value [B]}` in float64, logits divided by their temperature.

    In float32 two logits that differ could become equal, and another class the likeliest. Raises `ValueError` where
    a classification task has no temperature.
    """
    missing = [task for task in outputs if task in CLASSIFICATION_TASKS and task not in temperatures]
    if missing:
        raise ValueError(
            f"no temperature for {', '.join(missing)}: the model is not calibrated; `dvc repro` trains it to the end"
        )
    return {
        task: output.double() / temperatures[task] if task in CLASSIFICATION_TASKS else output.double()
        for task, output in outputs.items()
    }
