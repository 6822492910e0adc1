"""The heads, and how temperatures scale their logits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from aerofuse.data.labels import CLASSIFICATION_TASKS, TASKS, ClassLists

_HIDDEN_FEATURES = 64  # of a regression head


class Heads(nn.Module):
    """Map features `[B, D]` to `{task: logits [B, C] or value [B]}`, with one head per task.

    Raises `ValueError` for a task that does not exist, and for none.
    """

    def __init__(self, num_features: int, classes: ClassLists, tasks: Sequence[str], dropout: float) -> None:
        unknown = set(tasks) - set(TASKS)
        if unknown or not tasks:
            raise ValueError(f"tasks are {list(tasks)}; there are {', '.join(TASKS)}")
        super().__init__()
        self.num_features = num_features
        self.tasks = tuple(tasks)
        for task in tasks:
            head = (
                nn.Sequential(nn.Dropout(dropout), nn.Linear(num_features, len(classes.by_task[task])))
                if task in CLASSIFICATION_TASKS
                else _RegressionHead(num_features, dropout)
            )
            self.add_module(f"{task}_head", head)  # not `type`: every module has a method of that name

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        return {task: self.get_submodule(f"{task}_head")(features) for task in self.tasks}


def scale_logits(outputs: Mapping[str, Tensor], temperatures: Mapping[str, float]) -> dict[str, Tensor]:
    """Return outputs `{task: logits [B, C] or value [B]}` in float64, with logits divided by their temperature.

    In float32 two different logits could become equal, and another class the likeliest. Raises `ValueError` where
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


class _RegressionHead(nn.Module):
    """Map features `[B, D]` to a value `[B]` in 0..1."""

    def __init__(self, num_features: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(num_features, _HIDDEN_FEATURES),
            nn.ReLU(),
            nn.Linear(_HIDDEN_FEATURES, 1),
            nn.Sigmoid(),
        )

    def forward(self, features: Tensor) -> Tensor:
        value: Tensor = self.layers(features)
        return value.squeeze(-1)
