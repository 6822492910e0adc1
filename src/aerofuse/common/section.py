"""The base of every section of `params.yaml`."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A typed, frozen part of `params.yaml`; unknown keys are refused, and so is a number given as a string."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
