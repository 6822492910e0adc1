"""The `data` section: which photos, where from, and how they are split."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from aerofuse.params.section import Section
from aerofuse.params.synthetic import SyntheticParams


class SplitParams(Section):
    """Shares of the photos that go to each split; airframes are never divided between splits."""

    train: float = Field(gt=0, lt=1)
    validation: float = Field(gt=0, lt=1)
    test: float = Field(gt=0, lt=1)
    seed: int = Field(ge=0)

    @model_validator(mode="after")
    def _shares_make_a_whole(self) -> Self:
        total = self.train + self.validation + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(f"train + validation + test must be 1, not {total:.4g}")
        return self


class DataParams(Section):
    """Which photos the pipeline is run on."""

    source: Literal["synthetic"]
    root: str | None
    labels: str | None
    max_bad_fraction: float = Field(ge=0, le=1)
    split: SplitParams
    synthetic: SyntheticParams
