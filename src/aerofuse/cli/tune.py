"""A grid or a search over parameters of params.yaml, on one machine or on many; each trial is an experiment of DVC.

A study is kept in a storage, by default a file in .resume/tune. Workers take its trials: those that this command
starts, and any others, on any machine that reaches the storage and has the same commit. The result is in
reports/tune.md. The same command goes on with a study. Exit status: 0 all is done, 1 something is not, 2 it could not
run, 130 it was stopped.
"""

from __future__ import annotations

import argparse
import importlib

from aerofuse.cli.arguments import at_least
from aerofuse.plotting.wording import MODELS

_STORAGE = "sqlite:///.resume/tune/studies.db"
_EXAMPLES = """examples:
  aerofuse tune fusion_method=concat,add seed=0,1,2
  aerofuse tune recipes.quick.train_stage_c.learning_rate=1e-5..1e-3:log --trials 20 --prune
  aerofuse tune seed=0,1,2,3 --storage postgresql://me@db.example.org/tune --workers 0
  aerofuse tune --worker --storage postgresql://me@db.example.org/tune

VALUES are texts between commas, or LOW..HIGH, which a search draws from, with :log for its logarithm. libpq finds
passwords in ~/.pgpass or PGPASSWORD. With Slurm, Kubernetes and SSH: docs/teams.md."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the subcommand takes."""
    parser.description, parser.epilog = __doc__, _EXAMPLES
    study = parser.add_argument_group("the study")
    study.add_argument("settings", nargs="*", metavar="NAME=VALUES", help="a name of params.yaml, and what it may be")
    study.add_argument("--trials", type=at_least(1), metavar="N", help="search, with so many trials (default: a grid)")
    study.add_argument("--prune", action="store_true", help="end a trial that falls below the median after an epoch")
    study.add_argument("--model", choices=MODELS, default="hybrid", help="whose score counts (default: %(default)s)")
    study.add_argument("--name", help="of the study (default: made of what it is about)")
    workers = parser.add_argument_group("workers")
    workers.add_argument("--worker", action="store_true", help="work for a study that was started elsewhere")
    workers.add_argument("--storage", default=_STORAGE, metavar="URL", help="default: %(default)s")
    workers.add_argument("--workers", type=at_least(0), default=1, metavar="N", help="to start here (default: 1)")
    workers.add_argument(
        "--heartbeat", type=at_least(1), default=60, metavar="S", help="a worker silent for twice that is dead (60)"
    )
    workers.add_argument("--no-push", action="store_true", help="push no results, though there are git and DVC remotes")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run a study, or a worker."""
    settings = _read_settings(options.settings)
    if bool(settings) == options.worker:
        raise ValueError("give either --worker, or what a study varies, such as seed=0,1,2")
    try:
        running = importlib.import_module("aerofuse.tuning.running")
    except ModuleNotFoundError as error:
        raise ValueError(f"{error}: pip install 'aerofuse[tune]'") from None
    place = running.StudyPlace(options.storage, options.name, options.heartbeat)
    try:
        if options.worker:
            return int(running.run_worker(place, push=not options.no_push))
        status: int = running.run_study(
            place,
            settings,
            model=options.model,
            trials=options.trials,
            prune=options.prune,
            workers=options.workers,
            options=["--no-push"] if options.no_push else [],
        )
        return status
    except RuntimeError as error:  # of git
        raise ValueError(str(error)) from None


def _read_settings(texts: list[str]) -> dict[str, str]:
    settings: dict[str, str] = {}
    for text in texts:
        name, equals, values = text.partition("=")
        if not (name and equals and values):
            raise ValueError(f"{text!r} is not NAME=VALUES, such as seed=0,1,2")
        if name in settings:
            raise ValueError(f"{name} is given twice")
        settings[name] = values
    return settings
