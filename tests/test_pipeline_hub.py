"""The recipes whose weights are of the hub, shrunken, from the download to the report."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from ruamel.yaml import YAML

from aerofuse.common.files import load_weights
from aerofuse.models.files import load_model
from tests.hub_server import HostedModel, HubServer, hub_server
from tests.imports import ROOT
from tests.pipeline import ENVIRONMENT, clone_on_a_shrunken_recipe, ran, run_dvc, warm_environment

pytestmark = pytest.mark.slow

# Small ones of the hub. The smallest Swin, as the recipes have it, has five times as many parameters as this ViT.
BACKBONES = {"cnn": "convnext_atto", "transformer": "vit_tiny_patch16_224"}
RECIPES = [
    name
    for name, recipe in YAML().load((ROOT / "params.yaml").read_text(encoding="utf-8"))["recipes"].items()
    if name in ("small", "laptop") and recipe["weights"]["source"] == "hub"
]


@dataclass(frozen=True)
class RunFromHub:
    """A clone after `dvc repro` with the hub, and what was downloaded."""

    folder: Path
    hub: HubServer
    environment: Mapping[str, str]
    downloads: list[str]


@pytest.fixture(scope="module")
def hub() -> Iterator[HubServer]:
    with hub_server(*(HostedModel(name, seed=1) for name in BACKBONES.values())) as server:
        yield server


@pytest.fixture(scope="module", params=RECIPES)
def reproduced(request: pytest.FixtureRequest, hub: HubServer, tmp_path_factory: pytest.TempPathFactory) -> RunFromHub:
    folder = tmp_path_factory.mktemp(request.param)
    environment = {"HF_ENDPOINT": hub.url, "HF_HOME": str(folder / "cache")}
    recipe = f"recipes.{request.param}"
    changes = {
        "recipe": request.param,
        "data.synthetic.num_images": 48,
        "data.synthetic.num_airframes": 48,
        "data.small_types": "merge",  # 48 airframes are too few for ten types
        "explain.mistakes": 1,
        f"{recipe}.training.mixed_precision": "no",  # bf16 is many times slower on most CPUs
        f"{recipe}.training.feature_views": 1,
        f"{recipe}.training.num_workers": 0,
        **{f"{recipe}.backbones.{branch}": name for branch, name in BACKBONES.items()},
    }
    clone = clone_on_a_shrunken_recipe(folder / "aerofuse", changes=changes)
    hub.requests.clear()
    # A warm Python has read the address of the hub already.
    run_dvc(clone, "repro", "weights", environment=ENVIRONMENT | environment)
    downloads = hub.downloads
    run_dvc(clone, "repro", environment=warm_environment() | environment)
    return RunFromHub(clone, hub, ENVIRONMENT | environment, downloads)


def test_weights_are_downloaded_once_and_recorded(reproduced: RunFromHub) -> None:
    record = json.loads((reproduced.folder / "models/pretrained/record.json").read_text())
    for branch, served in zip(BACKBONES, reproduced.hub.models, strict=True):
        file = reproduced.folder / f"models/pretrained/{branch}.safetensors"
        assert record[branch] | {"licence": ""} == {
            "backbone": served.name,
            "source": "hub",
            "location": served.repository,
            "revision": served.commit,
            "licence": "",
            "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        }
        assert f"GET /{served.repository}/resolve/{served.commit}/model.safetensors" in reproduced.downloads
        state = load_weights(file)
        assert state.keys() == served.features_state.keys()
        assert all(torch.equal(state[key], served.features_state[key]) for key in state)
    assert len(reproduced.downloads) == 2


def test_training_starts_from_them(reproduced: RunFromHub) -> None:
    """Phase A trains neither backbone, so its model still has their first weights."""
    model, _ = load_model(reproduced.folder / "models/stage_a")
    for branch, served in zip(BACKBONES, reproduced.hub.models, strict=True):
        state = model.backbones()[branch].model.state_dict()
        assert state.keys() == served.features_state.keys()
        assert all(torch.equal(state[key], served.features_state[key]) for key in state)


def test_the_report_compares_three_models(reproduced: RunFromHub) -> None:
    page = (reproduced.folder / "reports/comparison.md").read_text(encoding="utf-8")
    for model in ("single-task", "multi-task", "hybrid"):
        assert model in page
    assert (reproduced.folder / "reports/index.html").stat().st_size > 10_000


def test_another_run_of_the_stage_downloads_nothing(reproduced: RunFromHub) -> None:
    before = (reproduced.folder / "models/pretrained/record.json").read_bytes()
    reproduced.hub.requests.clear()
    done = run_dvc(
        reproduced.folder, "repro", "--force", "--single-item", "weights", environment=reproduced.environment
    )
    assert ran(done.stdout) == {"weights"}
    assert len([request for request in reproduced.hub.requests if "/api/models/" in request]) == 2  # newest commits
    assert reproduced.hub.downloads == []
    assert (reproduced.folder / "models/pretrained/record.json").read_bytes() == before


def test_offline_the_stage_ends_with_the_remedy(reproduced: RunFromHub) -> None:
    offline = {**reproduced.environment, "HF_HUB_OFFLINE": "1"}
    done = run_dvc(reproduced.folder, "repro", "--force", "--single-item", "weights", check=False, environment=offline)
    assert done.returncode != 0
    assert f"weights: the weights {reproduced.hub.models[0].repository} could not be fetched" in done.stdout
    assert "set weights.source to file" in done.stdout
    assert "Traceback" not in done.stdout
