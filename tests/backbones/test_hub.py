"""Weights of the hub, downloaded from a stand-in; of the whole pipeline in test_pipeline_hub.py."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants
import pytest
import timm
import torch
from safetensors.torch import save
from torch import Tensor

from aerofuse.backbones.backbone import create_backbone
from aerofuse.backbones.families import FAMILIES
from aerofuse.backbones.weights import download_backbone
from tests.hub_server import HostedModel, HubServer, hub_server

NAME = "convnext_atto"


@pytest.fixture(scope="module")
def models() -> list[HostedModel]:
    """Two commits of one model."""
    return [HostedModel(NAME, seed) for seed in (0, 1)]


@pytest.fixture
def hub(models: list[HostedModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A hub with these models, which a test may spoil, and an empty cache."""
    with hub_server(*map(copy.copy, models)) as server:
        template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", server.url)
        monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        yield server


def _download(revision: str | None = None) -> tuple[dict[str, Tensor], str]:
    """The weights, and the commit that they are of."""
    backbone, record = download_backbone(NAME, revision, 224)
    assert (record.location, record.licence) == ("timm/convnext_atto.d2_in1k", "apache-2.0")
    return backbone.model.state_dict(), record.revision


def _is(state: dict[str, Tensor], model: HostedModel) -> bool:
    served = model.features_state
    return state.keys() == served.keys() and all(torch.equal(state[key], served[key]) for key in served)


def test_the_newest_weights_are_those_of_the_hub(hub: HubServer) -> None:
    older, newest = hub.models
    state, commit = _download()
    assert commit == newest.commit
    assert _is(state, newest)
    assert not _is(state, older)


def test_what_is_there_is_not_downloaded_again(hub: HubServer) -> None:
    _download()
    assert hub.downloads == [f"GET /timm/convnext_atto.d2_in1k/resolve/{hub.models[-1].commit}/model.safetensors"]
    hub.requests.clear()
    state, commit = _download()
    assert hub.downloads == []
    assert commit == hub.models[-1].commit
    assert _is(state, hub.models[-1])


def test_a_revision_is_what_is_fetched(hub: HubServer) -> None:
    older = hub.models[0]
    state, commit = _download(older.commit)
    assert commit == older.commit
    assert _is(state, older)
    assert not [request for request in hub.requests if hub.models[1].commit in request]


def test_a_revision_that_is_not_there_is_named(hub: HubServer) -> None:
    with pytest.raises(ConnectionError, match=r"(?s)timm/convnext_atto\.d2_in1k could not.*v7"):
        _download("v7")


def test_a_connection_that_breaks_off_goes_on_where_it_was(hub: HubServer) -> None:
    hub.models[-1].breaks_off_after = 1_000_000
    state, _ = _download()
    assert len(hub.downloads) == 2
    assert _is(state, hub.models[-1])


REMEDY = r"weights\.source to file"


def test_a_hub_that_does_not_answer_is_named_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with hub_server() as server:
        pass
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", server.url)
    with pytest.raises(ConnectionError, match=rf"(?s)timm/convnext_atto\.d2_in1k could not be fetched.*{REMEDY}"):
        _download()


def test_without_network_weights_of_the_cache_are_no_answer_of_the_hub(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    _download()
    hub.requests.clear()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConnectionError, match=rf"(?s)timm/convnext_atto\.d2_in1k.*{REMEDY}"):
        _download()
    assert hub.requests == []


def test_a_file_that_is_cut_off_is_refused(hub: HubServer) -> None:
    model = hub.models[-1]
    model.sent = model.content[:100_000]
    message = rf"(?s)timm/convnext_atto\.d2_in1k could not.*{len(model.content)}.*100000.*{REMEDY}"
    with pytest.raises(ConnectionError, match=message):
        _download()
    model.sent = model.content
    assert _is(_download()[0], model)


def test_a_file_with_another_hash_is_refused_with_what_to_delete(hub: HubServer, tmp_path: Path) -> None:
    model = hub.models[-1]
    model.sent = model.content[:-1] + bytes([model.content[-1] ^ 1])
    for _ in range(2):
        with pytest.raises(ValueError, match=r"model\.safetensors is damaged.*timm/convnext_atto\.d2_in1k") as error:
            _download()
    assert str(tmp_path / "cache/models--timm--convnext_atto.d2_in1k") in str(error.value)
    assert f"its SHA-256 is not {model.sha256}" in str(error.value)


def test_weights_that_lack_a_tensor_are_refused(hub: HubServer) -> None:
    """They would be random there."""
    model = hub.models[-1]
    model.content = model.sent = save({key: tensor for key, tensor in model.state.items() if key != "stem.0.weight"})
    with pytest.raises(
        ValueError, match=r"(?s)timm/convnext_atto\.d2_in1k does not fit.*stem\.0\.weight.*cnn_revision"
    ):
        _download()


@pytest.mark.parametrize("variant", [family.variants[0] for family in FAMILIES.values() if family.input_dims == 4])
def test_every_family_has_all_weights_and_no_classifier(variant: str) -> None:
    served = timm.create_model(variant).state_dict()
    backbone, plain = create_backbone(variant, pretrained=True, state_dict=dict(served)), create_backbone(variant)
    assert str(backbone) == str(plain)
    state = backbone.model.state_dict()
    assert state.keys() == plain.model.state_dict().keys() < served.keys()
    assert all(torch.equal(state[key], served[key]) for key in state)
