"""Check all of params.yaml before any other stage runs, and so before any output is lost."""

from __future__ import annotations

from pathlib import Path

from aerofuse.backbones.create import check_backbone_name
from aerofuse.params.loading import PARAMS_FILE, read_params_file, validate
from aerofuse.params.schema import Params
from stages import run


def check_params() -> None:
    params = validate(Params, read_params_file(), str(PARAMS_FILE))
    for recipe in params.recipes.values():
        check_backbone_name(recipe.backbones.cnn)
        check_backbone_name(recipe.backbones.transformer)
    # Constant, so that a change of parameters re-runs only the stages that read what changed.
    Path("data/params_checked").write_text("params.yaml can be used\n")


if __name__ == "__main__":
    run(check_params)
