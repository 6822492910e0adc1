"""`aerofuse mlflow`: a model that MLflow serves and registers, and what was logged while MLflow was away.

Training never waits for MLflow: what its server does not take, because it is gone, slow or unwilling, is kept in
`.resume/mlflow/`, one folder a run. The next training sends it in passing; this command sends it now.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import os
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from aerofuse.cli.arguments import add_model_option, at_least
from aerofuse.serving.limits import Limits
from aerofuse.tracking.addresses import hide_password, summary, tracking_uri
from aerofuse.tracking.journal import Entry, is_held, read_journals
from aerofuse.tracking.run_request import RunRequest
from aerofuse.tracking.sending import HELD, send_journal
from aerofuse.tracking.store import AwayError, Store, set_defaults

_EXAMPLES = """examples:
  aerofuse mlflow list
  aerofuse mlflow send
  aerofuse mlflow model --register aircraft
  MLFLOW_TRACKING_URI=https://me:secret@mlflow.example.org aerofuse mlflow send

Every run is sent to the server that it was logged for. Passwords are not kept: where that address has one, name it in
MLFLOW_TRACKING_URI, or set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD. Sending twice changes nothing, and
what a training is still writing is left to it. What MLflow refuses is kept and tried again; to give it up, remove the
run's folder in .resume/mlflow/ (docs/tracking.md)."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommands."""
    parser.description, parser.epilog = __doc__, _EXAMPLES
    actions = parser.add_subparsers(title="what to do", required=True, metavar="ACTION")
    for name, run, text in (
        ("list", run_list, "show what waits; asks no server"),
        ("send", run_send, "send what waits; exit status 0 when nothing is left, else 1"),
    ):
        action = actions.add_parser(name, help=text, description=text)
        action.add_argument("--repo", type=Path, metavar="FOLDER", help="the repository (default: the current folder)")
        action.set_defaults(run=run)
    text = "make an MLflow model of a package, for `mlflow models serve`, and register it (docs/serving.md)"
    action = actions.add_parser("model", help=text, description=text)
    add_model_option(action)
    action.add_argument("--output", type=Path, default="build/mlflow", metavar="DIR", help="(default: %(default)s)")
    action.add_argument("--register", metavar="NAME", help="also register it with MLflow, as a new version of NAME")
    action.add_argument("--repo", type=Path, metavar="FOLDER", help="the repository (default: the current folder)")
    limits = action.add_argument_group("what a request may hold")
    for name, default in dataclasses.asdict(Limits()).items():
        option = f"--{name.replace('_', '-')}"
        limits.add_argument(option, type=at_least(1), default=default, metavar="N", help=f"(default: {default})")
    action.set_defaults(run=run_model)


def run_list(options: argparse.Namespace) -> int:
    """Print what waits."""
    table = _make_table()
    for folder, run, entries in read_journals(_root(options)):
        refused = [entry.reason for entry in entries if entry.reason is not None]
        state = f"refused: {refused[-1]}" if refused else "waits"
        _add_row(table, run, entries, HELD if is_held(folder) else state)
    _show(table)
    return 0


def run_send(options: argparse.Namespace) -> int:
    """Send what waits, and print what became of it; status 1 where something is left."""
    root = _root(options)
    set_defaults()
    table = _make_table()
    sender = _SendCommand(root)
    left = False
    with Console(stderr=True).status("sending what waits ...") as status:
        for folder, run, entries in read_journals(root):
            status.update(f"sending {run.key} ...")
            reason = sender.send(folder, run)
            left |= reason is not None
            _add_row(table, run, entries, "sent" if reason is None else f"left: {reason}")
    _show(table)
    return int(left)


def run_model(options: argparse.Namespace) -> int:
    """Write the folder, and register the model where that is asked for."""
    root = _root(options)
    limits = Limits(**{field.name: getattr(options, field.name) for field in dataclasses.fields(Limits)})
    set_defaults()
    # Late, for it takes seconds, and MLflow reads its settings when it is imported.
    serving = importlib.import_module("aerofuse.serving.mlflow_model")
    serving.write_mlflow_model(options.model, options.output, limits)
    console = Console(soft_wrap=True)
    console.print(
        f"{options.output} is an MLflow model. It answers at http://127.0.0.1:5001/invocations after", markup=False
    )
    console.print(f"  mlflow models serve -m {options.output} --env-manager local -p 5001", markup=False)
    if options.register is not None:
        try:
            version = serving.register_mlflow_model(options.model, options.register, root, limits)
        except Exception as error:  # whatever MLflow and its parts raise
            raise ValueError(f"not registered at {hide_password(tracking_uri(root))}: {summary(error)}") from error
        console.print(f"Registered as {options.register}, version {version}.", markup=False)
    return 0


class _SendCommand:
    """Sends journals, each to the server it is for; one that is away is asked once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._stores: dict[str, Store] = {}
        self._away: dict[str, str] = {}

    def send(self, folder: Path, run: RunRequest) -> str | None:
        """Send one journal; return why something of it is left."""
        here = tracking_uri(self._root)
        uri = here if run.uri == hide_password(here) else run.uri
        if "***" in uri:
            return "its address has a password; name it in MLFLOW_TRACKING_URI"
        if uri in self._away:
            return self._away[uri]
        try:
            return send_journal(folder, self._stores.setdefault(uri, Store(uri, self._root)))
        except AwayError as error:
            self._away[uri] = str(error)
            return self._away[uri]


def _root(options: argparse.Namespace) -> Path:
    root: Path = options.repo or Path(os.environ.get("DVC_ROOT", "."))
    if not root.is_dir():
        raise ValueError(f"there is no folder {root}; name the repository with --repo")
    return root.resolve()


def _make_table() -> Table:
    table = Table()
    table.add_column("run", overflow="fold")
    for column in ("entries", "artifacts", "refused"):
        table.add_column(column, justify="right")
    table.add_column("state", overflow="fold")
    return table


def _add_row(table: Table, run: RunRequest, entries: list[Entry], state: str) -> None:
    refused = sum(entry.reason is not None for entry in entries)
    counts = (len(entries) - refused, sum(entry.kind == "artifact" for entry in entries), refused)
    table.add_row(f"{run.key}\n{escape(run.uri)}", *map(str, counts), escape(state))


def _show(table: Table) -> None:
    Console().print(table if table.row_count else "Nothing waits for MLflow.")
