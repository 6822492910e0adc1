"""The whole of `params.yaml` as one type, for the stage that checks it before anything runs."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, model_validator

from aerofuse.backbones.weights import BackboneParams, WeightParams
from aerofuse.common.params import Section
from aerofuse.data.shard_cache import ShardCacheParams
from aerofuse.ingest.params import DataParams
from aerofuse.metrics.params import CompareParams, EvaluateParams, ExplainParams, ExportParams
from aerofuse.models.fusion import FusionMethod
from aerofuse.tracking.tracker import TrackingParams
from aerofuse.training.params import HeadDropoutParams, LaunchParams, PhaseParams, TrainingParams


class Recipe(Section):
    """One size of the whole: images, backbones, weights, and how each stage trains.

    `training` is complete here; in the file, a recipe has only what differs from the top-level section.
    """

    image_size: int = Field(ge=32, le=1024)
    backbones: BackboneParams
    weights: WeightParams
    head_dropout: HeadDropoutParams
    training: TrainingParams
    train_single_task: PhaseParams
    train_multi_task: PhaseParams
    train_stage_a: PhaseParams
    train_stage_b: PhaseParams
    train_stage_c: PhaseParams
    evaluate: EvaluateParams


class Params(Section):
    """All of `params.yaml`."""

    recipe: str
    fusion_method: FusionMethod
    seed: int = Field(ge=0)
    data: DataParams
    export: ExportParams
    explain: ExplainParams
    compare: CompareParams
    tracking: TrackingParams
    launch: LaunchParams
    shard_cache: ShardCacheParams
    training: dict[str, Any] = Field(description="of all recipes; checked as part of each")
    recipes: dict[str, Recipe] = Field(min_length=1)

    @model_validator(mode="after")
    def _recipe_exists(self) -> Self:
        if self.recipe not in self.recipes:
            raise ValueError(f"recipe is {self.recipe!r}; params.yaml has the recipes {', '.join(self.recipes)}")
        return self

    @property
    def active(self) -> Recipe:
        """The recipe that `recipe` names."""
        return self.recipes[self.recipe]
