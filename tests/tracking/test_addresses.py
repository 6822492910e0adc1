from __future__ import annotations

import contextlib
import re
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from aerofuse.cli.main import main
from aerofuse.tracking.addresses import advice, hide_password, summary
from aerofuse.tracking.journal import read_journals
from aerofuse.tracking.store import make_client
from aerofuse.tracking.tracker import TrackingParams, track_run


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
    ("sqlite:////home/me@work/mlflow.db", "sqlite:////home/me@work/mlflow.db"),
    ("http://me:se#cret@mlflow.invalid", "http://***@mlflow.invalid"),
    ("postgresql://me:se/cr@et@db.invalid:5432/runs", "postgresql://***@db.invalid:5432/runs"),
    ("postgresql://me:se@cr/et@db.invalid/runs", "postgresql://***@db.invalid/runs"),
    ("postgresql://me:se cr?et@db.invalid/runs", "postgresql://***@db.invalid/runs"),
    (
        "postgresql://db.invalid:5432/runs?user=me&password=cr@et",
        "postgresql://db.invalid:5432/runs?user=***&password=***",
    ),
    ("postgresql://db.invalid/runs?password=se&cr@et#x", "postgresql://db.invalid/runs?password=***&***"),
    ("postgresql://db.invalid/runs?odd=1&password=cr@et", "postgresql://db.invalid/runs?***&password=***"),
    (
        "postgresql:///runs?host=/run/pg&user=me&password=se cret",
        "postgresql:///runs?host=/run/pg&user=***&password=***",
    ),
    ("mysql://db.invalid/runs?user=me&pwd=se@cret", "mysql://db.invalid/runs?user=***&pwd=***"),
    ("http://me:se?password=1@mlflow.invalid", "http://***"),
    ("me:secret@mlflow.invalid", "***@mlflow.invalid"),
]


@pytest.mark.parametrize(("uri", "hidden"), ADDRESSES)
def test_a_password_is_hidden_whatever_it_holds(uri: str, hidden: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert hide_password(uri) == hidden
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert summary(ValueError(f"cannot reach {uri} at all")) == f"ValueError: cannot reach {hidden} at all"


@pytest.mark.parametrize("uri", [uri for uri, hidden in ADDRESSES if "***" in hidden])
def test_no_part_of_a_password_is_in_what_a_client_says(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parsers take parts of such a password for a host, a port, a path or a database, and name them."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    heard = [uri, uri.partition("@")[2], uri.rpartition("@")[2]]
    with contextlib.suppress(ValueError, ArgumentError):
        heard += map(str, make_url(uri))
    with contextlib.suppress(ValueError):
        heard += [str(part) for part in urlsplit(uri)]
    for part in heard:
        found = summary(ValueError(f"cannot find host '{part}', port {part}, in {unquote(part)}"))
        assert not {"me", "secret", "se", "cret", "cr", "et"} & set(re.findall(r"\w+", found)), found


@pytest.mark.parametrize(
    "uri",
    [
        "postgresql+psycopg2://me:zeta/omega@kappa@127.0.0.1:9/runs",
        "postgresql+psycopg2://127.0.0.1:9/runs?user=me&password=zeta/omega@kappa",
        "postgresql+psycopg2://me:zeta omega@kappa@127.0.0.1:9/runs",
        "http://me:zeta/omega@kappa@127.0.0.1:9",
        "http://me:zeta omega@kappa@127.0.0.1:9",
        "http://me:zeta?omega#kappa@127.0.0.1:9",
        "http://me:zeta%2Fomega%40kappa@127.0.0.1:9",
        "http://127.0.0.1:9/path?user=me&password=zeta/omega@kappa",
    ],
)
def test_no_part_of_a_password_is_written_anywhere(
    uri: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """With the real clients, in the log, on the screen and on the disk."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with track_run("train", TrackingParams(enabled=True, experiment="aircraft", system_metrics=False)) as run:
        run.log_params({"seed": 0})
    assert main(["mlflow", "list"]) == 0
    assert main(["mlflow", "send"]) == 1
    written = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    assert any('"seed":"0"' in text for text in written)
    (key,) = {journal.uri for _, journal, _ in read_journals(tmp_path)}
    assert "127.0.0.1:9" in key  # the server that it is for
    for text in (caplog.text, *capfd.readouterr(), *written):
        assert not {"zeta", "omega", "kappa"} & set(re.findall(r"[a-z]+", text)), text


def test_an_escape_is_advised_where_it_is_needed() -> None:
    assert "such as %40 for @" in advice("postgresql://me:se/cr@et@db.invalid/runs")
    assert "such as %40 for @" in advice("postgresql://db.invalid/runs?password=se cret")
    for fine in ("postgresql://me:se%2Fcret@db.invalid/runs?password=se%40cret", "sqlite:////home/me@work/mlflow.db"):
        assert advice(fine) == ""


def test_addresses_that_are_not_the_users_are_hidden_too() -> None:
    error = ValueError("from http://a:secret@b.invalid to s3://c:secret@d.invalid, mail me@e.invalid")
    assert summary(error) == "ValueError: from http://***@b.invalid to s3://***@d.invalid, mail me@e.invalid"
