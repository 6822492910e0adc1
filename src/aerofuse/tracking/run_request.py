"""What a run is to be, known before any server is asked."""

from __future__ import annotations

import hashlib
import os
import secrets
import subprocess
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from aerofuse.tracking.addresses import hide_password


class RunRequest(BaseModel):
    """One run of a stage, under the parent run that groups one execution of the pipeline; a journal's first line."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str  # of this run and no other; sorts by time
    uri: str  # of the store, without a password
    experiment: str
    artifacts: str | None  # the folder of a new experiment's artifacts where the store does not know one
    stage: str
    dvc_stage: str
    tags: dict[str, str]  # of the run and of its parent
    start_ms: int  # milliseconds since 1970
    execution: str  # the parent is found by it
    execution_name: str
    ended: bool = False  # its end was logged


def describe_run(stage: str, experiment: str, uri: str, root: Path) -> RunRequest:
    """Describe the run that starts now, in the current folder: what it comes from, which execution it is part of."""
    tags = _tags()
    execution, name = _execution(tags)
    now = datetime.now(UTC)
    return RunRequest(
        key=f"{now:%Y%m%dT%H%M%S%f}-{stage}-{secrets.token_hex(3)}",
        uri=hide_password(uri),
        experiment=experiment,
        artifacts=(root / "mlartifacts").as_uri() if uri.startswith("sqlite:") else None,
        stage=stage,
        dvc_stage=os.environ.get("DVC_STAGE", stage),
        tags=tags,
        start_ms=time.time_ns() // 1_000_000,
        execution=execution,
        execution_name=name,
    )


def _execution(tags: Mapping[str, str]) -> tuple[str, str]:
    """Return a key that the stages of one execution of the pipeline share, and the name of that execution."""
    commit, name = tags.get("mlflow.source.git.commit", ""), tags.get("dvc_exp_name", "")
    if name:  # the same name may be used again on top of another commit
        execution = f"{name} {os.environ.get('DVC_EXP_BASELINE_REV', commit)}"
    else:
        params = Path("params.yaml")
        content = params.read_bytes() if params.is_file() else b""
        execution = f"{commit} {hashlib.sha256(content).hexdigest()}"
        name = (commit[:8] or "no commit") + ("-dirty" if tags["git_dirty"] == "true" else "")
    return hashlib.sha256(execution.encode()).hexdigest()[:16], name


def _tags() -> dict[str, str]:
    """Return what a run comes from: commit, whether there are changes on top, experiment, device."""
    import torch

    # What a run follows from; dvc.lock and metrics are written by the pipeline itself.
    changes = _git("status", "--porcelain", "--", "src", "stages", "dvc.yaml", "params.yaml")
    tags = {
        "mlflow.source.git.commit": _git("rev-parse", "HEAD"),
        "git_dirty": "true" if changes else "false",
        "dvc_exp_name": os.environ.get("DVC_EXP_NAME", ""),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
    }
    return {name: value for name, value in tags.items() if value}


def _git(*arguments: str) -> str:
    """Return what git says about the current folder; nothing where there is no git, no repository or no commit."""
    try:
        return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
