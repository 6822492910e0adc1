"""Kills the pipeline again and again, spoils what it keeps, and looks whether anything changed: `make chaos`.

The recipe that is active runs twice, in two clones of the committed repository: once undisturbed, and once while it is
killed at random moments, with every process that belongs to it, and started again. Now and then it is told to stop
(SIGTERM) instead, and a state that it keeps is damaged besides. In the end weights and metrics must be the same files,
byte for byte, and no kill may have cost more than one epoch's work.

`reports/chaos.md` and `reports/chaos.json` are the result. Ends with status 1 where a bit differs, or more was lost.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from ruamel.yaml import YAML

from aerofuse.cli.console import escape_what_stdout_cannot_show
from aerofuse.common.markdown import markdown_table
from tools.studies.killable_pipeline import REMEDIES, Pipeline, PipelineError

logger = logging.getLogger(__name__)

_KILLS_PER_STOP = 5  # how often it is killed before it is told to stop once
_KILLS_PER_DAMAGE = 4
# The last kill comes after so much of the time that the undisturbed run took: the disturbed one may be quicker.
_LAST_KILL_FRACTION = 0.7
_RESTART_S = 2.0  # dvc and torch take at least so long to start again, in which nothing could be lost


@dataclass(frozen=True)
class Fault:
    """One thing that was done to the pipeline, when, and what it was doing; `stage` is empty between two stages.

    Both are places in a training, in epochs: 2.5 is half way through the third. `reached` is the last one that it can
    have reached, the end of the epoch that it was in; `went_on_at` is where it began when it was started again.
    """

    kind: str
    second: float
    stage: str
    reached: float | None = None
    went_on_at: float | None = None

    @property
    def repeated_epochs(self) -> float | None:
        """The most work that was done twice; `None` where the stage had ended, or is no training."""
        if self.reached is None or self.went_on_at is None:
            return None
        return self.reached - self.went_on_at


@dataclass
class ChaosResult:
    """What was tried and what came of it."""

    recipe: str
    undisturbed_seconds: float
    disturbed_seconds: float = 0.0
    faults: list[Fault] = field(default_factory=list)
    files: int = 0
    different: list[str] = field(default_factory=list)

    @property
    def most_repeated_epochs(self) -> float:
        """After any kill, without those that left a damaged state."""
        return max(
            (fault.repeated_epochs or 0.0 for fault in self.faults if fault.kind.startswith("kill")), default=0.0
        )

    @property
    def survived(self) -> bool:
        """Whether nothing differs and nothing more than an epoch was done twice."""
        return not self.different and self.most_repeated_epochs <= 1.0


def run_chaos(workplace: Path, recipe: str, kills: int, seed: int, prepare: Callable[[Path], object]) -> ChaosResult:
    """Both runs in `workplace`; `prepare` is given each clone before."""
    calm, disturbed = (Pipeline(_clone(workplace / name, prepare)) for name in ("calm", "disturbed"))
    logger.info("undisturbed run")
    started = time.monotonic()
    calm.start()
    while not calm.wait(60):
        logger.info("%3.0f s, %s", time.monotonic() - started, calm.where()[0])
    seconds = round(time.monotonic() - started, 1)
    logger.info("it took %.0f s; now with %d kills", seconds, kills)
    return compare_disturbed(disturbed, calm, ChaosResult(recipe, seconds), kills, seed)


def compare_disturbed(disturbed: Pipeline, calm: Pipeline, result: ChaosResult, kills: int, seed: int) -> ChaosResult:
    """Run `disturbed`, and add to `result` what was done to it and what differs from `calm`, which has run."""
    _disturb(disturbed, result, kills, random.Random(seed))
    expected, found = calm.products(), disturbed.products()
    result.files = len(expected)
    result.different = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    return result


def _disturb(pipeline: Pipeline, result: ChaosResult, kills: int, rng: random.Random) -> None:
    # Moments of the undisturbed run: what the pipeline has done is kept, so that it comes further each time.
    count = kills + kills // _KILLS_PER_STOP
    moments = sorted(rng.uniform(1, _LAST_KILL_FRACTION * result.undisturbed_seconds) for _ in range(count))
    started = time.monotonic()
    before = 0.0
    pending: list[Fault] = []
    for number, moment in enumerate(moments):
        pipeline.start()
        if _wait(pipeline, moment - before + _RESTART_S, result):
            logger.warning("the pipeline ended before fault %d of %d", number + 1, count)
            break
        _note_what_went_on(pipeline, pending, result)
        kind = signal.SIGTERM if number % (_KILLS_PER_STOP + 1) == _KILLS_PER_STOP else signal.SIGKILL
        pipeline.kill(kind)
        stage, reached = pipeline.where()
        second = round(time.monotonic() - started, 1)
        logger.info("%s at %.0f s in %s", kind.name, second, stage or "no stage")
        fault = Fault(f"kill -{kind.value}", second, stage, reached)
        damage = _damage(pipeline.root, stage, rng) if number % _KILLS_PER_DAMAGE == _KILLS_PER_DAMAGE - 1 else None
        pending.append(replace(fault, kind=f"{damage} after {fault.kind}") if damage else fault)
        before = moment
    pipeline.start()
    while not _wait(pipeline, 60, result):
        logger.info("%3.0f s, %s", time.monotonic() - started, pipeline.where()[0])
    _note_what_went_on(pipeline, pending, result)
    result.faults += pending
    result.faults.sort(key=lambda fault: fault.second)
    result.disturbed_seconds = round(time.monotonic() - started, 1)


def _wait(pipeline: Pipeline, seconds: float, result: ChaosResult) -> bool:
    """`Pipeline.wait`, where DVC itself may need help after a kill."""
    while True:
        try:
            return pipeline.wait(seconds)
        except PipelineError as error:
            remedy = next((remedy for remedy in REMEDIES if remedy.said in str(error)), None)
            if remedy is None:
                raise
        logger.info(remedy.fault)
        remedy.mend(pipeline.root)
        result.faults.append(Fault(remedy.fault, result.faults[-1].second if result.faults else 0.0, ""))
        pipeline.start()


def _note_what_went_on(pipeline: Pipeline, pending: list[Fault], result: ChaosResult) -> None:
    """Of what is pending move to the result what was trained again; a stage may have been killed before it began."""
    for fault in list(pending):
        began = pipeline.went_on_at(fault.stage)
        if began is not None:
            pending.remove(fault)
            result.faults.append(replace(fault, went_on_at=began))


def _damage(root: Path, stage: str, rng: random.Random) -> str | None:
    """What was done to the latest state of a training, where there is one."""
    _, _, name = stage.partition("@")  # dvc.yaml's train_hybrid@stage_a keeps its states as train_stage_a
    states = sorted(root.glob(f".resume/train_{name}/*/state-*.pt"))
    if not states:
        return None
    content = bytearray(states[-1].read_bytes())
    if rng.random() < 0.5:
        states[-1].write_bytes(content[: len(content) // 2])
        return "state cut short"
    content[rng.randrange(len(content))] ^= 0xFF
    states[-1].write_bytes(content)
    return "a byte of the state changed"


def _clone(folder: Path, prepare: Callable[[Path], object]) -> Path:
    subprocess.run(["git", "clone", "--quiet", ".", str(folder)], check=True)
    prepare(folder)
    return folder


def shrink(root: Path, changes: Mapping[str, object]) -> None:
    """Change values of a clone's params.yaml, `recipes.quick.train_stage_a.epochs: 1`."""
    yaml, path = YAML(), root / "params.yaml"
    params = yaml.load(path.read_text(encoding="utf-8"))
    for name, value in changes.items():
        section = params
        *parents, last = name.split(".")
        for parent in parents:
            section = section[parent]
        section[last] = value
    with path.open("w", encoding="utf-8") as file:
        yaml.dump(params, file)


def chaos_page(result: ChaosResult) -> str:
    """The result as Markdown."""
    kinds = Counter(fault.kind for fault in result.faults)
    parts = [
        f"Recipe `{result.recipe}`: undisturbed in {result.undisturbed_seconds:.0f} s, "
        f"with {len(result.faults)} faults in {result.disturbed_seconds:.0f} s "
        f"(each costs the start of DVC and torch). "
        f"Of {result.files} files of weights and metrics {len(result.different) or 'none'} differ. "
        f"No kill cost more than {result.most_repeated_epochs:.2f} epochs of training.",
        markdown_table(["fault", "times"], [[kind, str(count)] for kind, count in sorted(kinds.items())], "lr"),
        markdown_table(
            ["second", "fault", "stage", "epochs done, at most", "went on after", "done twice, at most"],
            [_row(fault) for fault in result.faults],
            "rllrrr",
        ),
    ]
    if result.different:
        parts.append("Different: " + ", ".join(f"`{name}`" for name in result.different))
    return "\n\n".join(parts) + "\n"


def _row(fault: Fault) -> list[str]:
    epochs = (fault.reached, fault.went_on_at, fault.repeated_epochs)
    shown = ["" if number is None else f"{number:.2f}" for number in epochs]
    return [f"{fault.second:.0f}", fault.kind, fault.stage or "(between stages)", *shown]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run both, write the page, and say whether anything differs."""
    parser = argparse.ArgumentParser(prog="python -m tools.studies.chaos", description=__doc__)
    parser.add_argument("--kills", type=int, default=20, help="times that the pipeline is killed (default: 20)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="values of params.yaml, in YAML")
    parser.add_argument("--keep", type=Path, help="work in this new folder and keep it (default: a temporary one)")
    parser.add_argument("--output", type=Path, default=Path("reports"), help="where the page goes (default: reports)")
    options = parser.parse_args(arguments)
    escape_what_stdout_cannot_show()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    yaml = YAML(typ="safe")
    changes = {name: yaml.load(value) for name, _, value in (item.partition("=") for item in options.set)}
    recipe = yaml.load(Path("params.yaml").read_text(encoding="utf-8"))["recipe"]
    workplace = options.keep or Path(tempfile.mkdtemp(prefix="aerofuse-chaos-"))
    workplace.mkdir(parents=True, exist_ok=True)
    try:
        result = run_chaos(workplace, recipe, options.kills, options.seed, lambda root: shrink(root, changes))
    finally:
        if options.keep is None:
            shutil.rmtree(workplace, ignore_errors=True)
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "chaos.json").write_text(json.dumps(asdict(result), indent=2) + "\n", encoding="utf-8")
    page = chaos_page(result)
    (options.output / "chaos.md").write_text(page, encoding="utf-8")
    print(page)  # noqa: T201
    if not result.survived:
        sys.exit(1)


if __name__ == "__main__":
    main()
