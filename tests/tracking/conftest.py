"""What the tests of tracking share: a clean place, a store, and an experiment of the test's own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

from aerofuse.tracking import sending
from aerofuse.tracking import store as store_module
from aerofuse.tracking.tracker import TrackingParams
from tests.tracking.helpers import Arrived
from tests.tracking.trouble import TroubledMlflow


@pytest.fixture(autouse=True)
def clean_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty current folder and no variables of DVC or MLflow, neither before the test nor after it."""
    monkeypatch.chdir(tmp_path)
    with mock.patch.dict(os.environ):
        for name in [name for name in os.environ if name.startswith(("DVC_", "MLFLOW_"))]:
            del os.environ[name]
        yield


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder with one database for all tests, as creating one takes seconds; experiments keep them apart."""
    return tmp_path_factory.mktemp("store")


@pytest.fixture
def params(request: pytest.FixtureRequest) -> TrackingParams:
    """An experiment of the test's own."""
    return TrackingParams(enabled=True, experiment=request.node.name, system_metrics=False)


@pytest.fixture
def server(store: Path, monkeypatch: pytest.MonkeyPatch) -> TroubledMlflow:
    """A real store at an address that says nothing of it, asked again in no time when it is away."""
    troubled = TroubledMlflow(f"sqlite:///{store / 'mlflow.db'}")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://someone:secret@mlflow.invalid")
    monkeypatch.setattr(store_module, "make_client", lambda uri: troubled)
    monkeypatch.setattr(sending, "RETRY_S", 0.05)
    return troubled


@pytest.fixture
def arrived(store: Path, params: TrackingParams) -> Arrived:
    return Arrived(f"sqlite:///{store / 'mlflow.db'}", params)
