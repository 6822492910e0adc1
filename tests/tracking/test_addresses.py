from __future__ import annotations

import sys

import pytest

from aerofuse.tracking.addresses import hide_password, summary
from aerofuse.tracking.store import make_client


def test_a_driver_that_is_missing_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg2", None)  # as if it were not installed
    with pytest.raises(ImportError) as missing:
        make_client("postgresql+psycopg2://me:secret@127.0.0.1:9/mlflow")
    assert summary(missing.value).endswith(": pip install 'aerofuse[postgresql]'")


def test_another_module_is_none() -> None:
    assert "pip install" not in summary(ModuleNotFoundError("No module named 'odd'", name="odd"))


ADDRESSES = [
    ("http://me:secret@mlflow.invalid:5000/path", "http://***@mlflow.invalid:5000/path"),
    ("http://me:se/cret@mlflow.invalid", "http://***@mlflow.invalid"),
    ("http://me:se@cret@mlflow.invalid", "http://***@mlflow.invalid"),
    ("http://me:se?cret@mlflow.invalid", "http://***@mlflow.invalid"),
    ("http://me:se cret@mlflow.invalid", "http://***@mlflow.invalid"),
    ("postgresql://db.invalid/runs?user=me&password=se/cr@et", "postgresql://db.invalid/runs?user=***&password=***"),
    ("postgresql://me:secret@db.invalid/runs?sslmode=require", "postgresql://***@db.invalid/runs?sslmode=require"),
    ("sqlite:///mlflow.db", "sqlite:///mlflow.db"),
]


@pytest.mark.parametrize(("uri", "hidden"), ADDRESSES)
def test_a_password_is_hidden_whatever_it_holds(uri: str, hidden: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert hide_password(uri) == hidden
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert summary(ValueError(f"cannot reach {uri} at all")) == f"ValueError: cannot reach {hidden} at all"


def test_addresses_that_are_not_the_users_are_hidden_too() -> None:
    error = ValueError("from http://a:secret@b.invalid to s3://c:secret@d.invalid, mail me@e.invalid")
    assert summary(error) == "ValueError: from http://***@b.invalid to s3://***@d.invalid, mail me@e.invalid"
