"""The parameters in the section `data`: which photos, where from, and how they are split."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from aerofuse.common.params import AS_PATH, Section
from aerofuse.synthetic.params import SyntheticParams


class SplitParams(Section):
    """The share of the photos in each split. An airframe is never divided between splits."""

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


class CropParams(Section):
    """Whether training photos are cropped to their boxes, and the padding around, as a share of the box's sides."""

    to_box: bool
    padding: float = Field(ge=0, le=1)


class DataParams(Section):
    """The photos that the pipeline runs on."""

    source: Literal["synthetic", "table", "fgvc"]
    root: Annotated[str, AS_PATH, Field(min_length=1)]
    labels: Annotated[str, AS_PATH, Field(min_length=1)]
    fgvc_level: Literal["variant", "family", "manufacturer"]
    max_bad_fraction: float = Field(ge=0, le=1)
    duplicate_bits: int = Field(ge=0, le=64)
    small_types: Literal["refuse", "merge"]
    crop: CropParams
    split: SplitParams
    synthetic: SyntheticParams
