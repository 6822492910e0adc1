"""Check all of params.yaml before any other stage runs, and so before any output is lost; link the photos it names."""

from __future__ import annotations

from pathlib import Path

import torch

from aerofuse.backbones.backbone import create_backbone
from aerofuse.backbones.families import family_of
from aerofuse.checkpointing.budget import parse_budget
from aerofuse.checkpointing.plan import CheckpointingPlan
from aerofuse.common.params import PARAMS_FILE, find_place, read_params_file, validate
from aerofuse.ingest.inputs import link_inputs
from aerofuse.pipeline_params import Params
from aerofuse.training.params import AUTO, CheckpointingParams
from stages import run

_CHECKED = Path("data/params_checked")


def check_params() -> None:
    content = read_params_file()
    params = validate(Params, content, str(PARAMS_FILE))
    for name, recipe in params.recipes.items():
        family_of(recipe.backbones.cnn)
        family_of(recipe.backbones.transformer)
        checkpointing = recipe.training.gradient_checkpointing
        place = find_place(content, ("recipes", name, "training", "gradient_checkpointing", checkpointing.policy))
        _check_checkpointing(checkpointing, ".".join(map(str, place)))
    _check_segments(params)
    # Constant, so that a change of parameters re-runs only the stages that read what changed.
    _CHECKED.write_text("params.yaml can be used\n")
    link_inputs(params.data, _CHECKED)


def _check_checkpointing(checkpointing: CheckpointingParams, field: str) -> None:
    """Read what a policy names: a size, or the file of a plan."""
    try:
        if checkpointing.policy == "budget" and checkpointing.budget != AUTO:
            parse_budget(checkpointing.budget)
        elif checkpointing.plan is not None:
            CheckpointingPlan.load(Path(checkpointing.plan))
    except (ValueError, FileNotFoundError) as error:
        remedies = {"budget": f"or write {AUTO}", "plan": "save one there, or choose another policy"}
        raise ValueError(
            f"{PARAMS_FILE} cannot be used:\n  {field}: {error}; {remedies[checkpointing.policy]}"
        ) from None


def _check_segments(params: Params) -> None:
    """A backbone must be built to know how many units it can be cut between."""
    recipe = params.recipes[params.recipe]
    checkpointing = recipe.training.gradient_checkpointing
    if checkpointing.segments is not None:
        for name in (recipe.backbones.cnn, recipe.backbones.transformer):
            backbone = create_backbone(name, image_size_px=recipe.image_size).train()
            images = torch.zeros(2, 3, recipe.image_size, recipe.image_size)
            backbone.enable_gradient_checkpointing(checkpointing.segments, example_inputs=(images,))


if __name__ == "__main__":
    run(check_params)
