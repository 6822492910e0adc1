"""Sections that say what a model is made of: backbones, their weights, fusion, dropout."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from aerofuse.common.section import Section

FusionMethod = Literal["concat", "add", "attention"]
Branch = Literal["cnn", "transformer"]


class BackboneParams(Section):
    """The two backbones by name, as `aerofuse.backbones.create_backbone` knows them."""

    cnn: str = Field(min_length=1)
    transformer: str = Field(min_length=1)
    drop_path: float = Field(ge=0, lt=1, description="stochastic depth rate of both backbones")


class WeightParams(Section):
    """Where pretrained weights come from.

    `bundled`: shipped in the repository; `hub`: timm's weights on the Hugging Face hub; `file`: safetensors
    files of yours; `none`: random weights, refused unless `allow_random` says that it is meant.
    """

    source: Literal["bundled", "hub", "file", "none"]
    cnn_file: str | None = None
    transformer_file: str | None = None
    cnn_revision: str | None = None
    transformer_revision: str | None = None
    allow_random: bool = False

    @model_validator(mode="after")
    def _source_has_what_it_needs(self) -> Self:
        if self.source == "file" and not (self.cnn_file and self.transformer_file):
            raise ValueError("source `file` needs cnn_file and transformer_file: paths of safetensors files")
        if self.source == "none" and not self.allow_random:
            raise ValueError(
                "source `none` trains backbones from scratch, which is refused; set allow_random: true if that is meant"
            )
        return self


class HeadDropoutParams(Section):
    """Dropout in front of every head, per model."""

    single_task: float = Field(ge=0, lt=1)
    multi_task: float = Field(ge=0, lt=1)
    hybrid: float = Field(ge=0, lt=1)
