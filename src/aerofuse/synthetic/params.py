"""The parameters of the built-in data: how many photos, from where, and how hard."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from aerofuse.common.params import Section


class SyntheticParams(Section):
    """Size, viewpoint range and difficulty of the built-in data (docs/built-in-data.md)."""

    num_images: int = Field(default=12_000, ge=1, description="Photos in the data set.")
    num_airframes: int = Field(
        default=1_800, ge=1, description="Registrations; each recurs in num_images / num_airframes photos on average."
    )
    azimuth_spread_deg: float = Field(
        default=30.0, ge=0, le=80, description="Farthest the view turns from side-on towards the nose or tail, degrees."
    )
    elevation_range_deg: tuple[float, float] = Field(
        default=(-15.0, 7.0), strict=False, description="Lowest and highest view, degrees; below 0: overhead."
    )
    framing_range: tuple[float, float] = Field(
        default=(0.86, 0.95), strict=False, description="Least and largest share of the photo's side that it fills."
    )
    flying_fraction: float = Field(default=0.4, ge=0, le=1, description="Share of photos taken in flight.")
    occluded_fraction: float = Field(
        default=0.35, ge=0, le=1, description="Share of photos with a block of 0.05 to max_block; the rest is below."
    )
    max_block: float = Field(default=0.6, ge=0.05, le=0.8, description="Largest hidden share of an aircraft.")
    degradation: float = Field(
        default=0.9, ge=0, le=1, description="Largest loss of clarity: labels spread evenly over 1 - degradation .. 1."
    )
    haze: float = Field(default=0.15, ge=0, le=0.8, description="Largest share of contrast lost to haze.")

    @model_validator(mode="after")
    def _ranges_are_ordered(self) -> Self:
        low, high = self.elevation_range_deg
        if not -60 <= low <= high <= 30:
            raise ValueError(
                f"elevation_range_deg = {self.elevation_range_deg}: give (lowest, highest) within -60 .. 30 degrees"
            )
        small, large = self.framing_range
        if not 0.4 <= small <= large <= 0.95:
            raise ValueError(
                f"framing_range = {self.framing_range}: give (least, largest) within 0.4 .. 0.95 of the width"
            )
        return self
