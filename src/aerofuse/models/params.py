"""Parameters of the models. They stand apart because a prediction reads no parameters and needs no YAML."""

from __future__ import annotations

from pydantic import Field

from aerofuse.common.params import Section


class HeadDropoutParams(Section):
    """Dropout in front of every head, per model."""

    single_task: float = Field(ge=0, lt=1)
    multi_task: float = Field(ge=0, lt=1)
    hybrid: float = Field(ge=0, lt=1)
