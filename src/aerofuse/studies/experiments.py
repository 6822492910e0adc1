"""Running DVC experiments from code, and reading the metrics that they leave."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

Metrics = Mapping[str, Mapping[str, Any]]


def run_experiment(name: str, settings: Mapping[str, object], targets: Sequence[str] = ()) -> None:
    """Run the committed pipeline with changed parameters, in a copy of the repository; the workspace stays as it is.

    `targets` are the stages to stop at; none means the whole pipeline. An experiment of the same name is replaced;
    what has not changed comes from DVC's run cache. Raises `RuntimeError` where the pipeline fails.
    """
    # `dvc exp run --force` would replace one too, but run again what has not changed.
    subprocess.run(["dvc", "exp", "remove", name], check=False, capture_output=True)
    changes = [f"--set-param={key}={value}" for key, value in settings.items()]
    command = ["dvc", "exp", "run", "--temp", "--name", name, *changes, *targets]
    if subprocess.run(command, check=False).returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed; its output above says why")


def metrics_by_name() -> dict[str, Metrics]:
    """The metrics of the workspace (`workspace`) and of every experiment, `{name: {file: content}}`.

    Raises `RuntimeError` where DVC cannot show them.
    """
    # Experiments hang on the commit that they started from, which a commit made meanwhile leaves behind.
    command = ["dvc", "exp", "show", "--json", "--all-commits"]
    shown = subprocess.run(command, check=False, capture_output=True, text=True)
    if shown.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed: {shown.stderr.strip()}")
    return read_shown(json.loads(shown.stdout))


def read_shown(rows: list[dict[str, Any]]) -> dict[str, Metrics]:
    """What `dvc exp show --json` prints, as `{name: {file: content}}`; what failed or has no metrics is left out."""
    found: dict[str, Metrics] = {}
    for row in rows:
        if row["rev"] == "workspace":
            found["workspace"] = _contents(row)
        for experiment in row.get("experiments") or []:
            found[experiment["name"]] = _contents(experiment["revs"][0])
    return found


def _contents(revision: Mapping[str, Any]) -> Metrics:
    metrics = (revision.get("data") or {}).get("metrics") or {}
    return {file: entry["data"] for file, entry in metrics.items() if "data" in entry}
