from __future__ import annotations

import sys

import pytest

from aerofuse.tracking.addresses import summary
from aerofuse.tracking.store import make_client


def test_a_driver_that_is_missing_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg2", None)  # as if it were not installed
    with pytest.raises(ImportError) as missing:
        make_client("postgresql+psycopg2://me:secret@127.0.0.1:9/mlflow")
    assert summary(missing.value).endswith(": pip install 'aerofuse[postgresql]'")


def test_another_module_is_none() -> None:
    assert "pip install" not in summary(ModuleNotFoundError("No module named 'odd'", name="odd"))
