"""A training that was stopped goes on with the same bits, wherever and however it was stopped."""

from __future__ import annotations

import errno
import gc
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from aerofuse.data.labels import ClassLists
from aerofuse.training import state_folder
from aerofuse.training.interruption import InterruptedTraining
from aerofuse.training.state_folder import StateFolder
from tests.training.small_training import SmallTraining, digest, weights

UPDATES = 6  # three an epoch


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it, nothing is saved after it."""


@pytest.fixture(scope="module")
def undisturbed(prepared_folder: Path, classes: ClassLists) -> str:
    return digest(*SmallTraining(prepared_folder, classes).run())


@pytest.fixture
def states(tmp_path: Path) -> StateFolder:
    folder = StateFolder(tmp_path / "key")
    folder.path.mkdir()
    return folder


def _killed_at(number: int) -> Callable[[int], None]:
    def kill(update: int) -> None:
        if update == number:
            raise Killed

    return kill


@pytest.mark.parametrize("update", range(UPDATES))
def test_killed_before_any_update(
    update: int, prepared_folder: Path, classes: ClassLists, states: StateFolder, undisturbed: str
) -> None:
    with pytest.raises(Killed):
        SmallTraining(prepared_folder, classes, states, before_update=_killed_at(update)).run()
    made: list[int] = []
    torch.manual_seed(99)  # another process has drawn other numbers by now
    model, report = SmallTraining(prepared_folder, classes, states, before_update=made.append).run()
    assert digest(model, report) == undisturbed
    assert report.resumed == (update >= 2)  # the first state is that after two updates
    repeated = UPDATES - update - len(made)
    assert -2 < repeated <= 0  # of what was made before, one update at most was made again


EVERYTHING = {
    "weight_averaging": 0.9,
    "layer_decay": 0.8,
    "label_smoothing": 0.1,
    "mixing": {"probability": 0.7, "mixup": 0.2, "cutmix": 1.0},
    "class_balance": "loss",
    "augmentation": {
        "horizontal_flip": True,
        "color_jitter": 0.2,
        "strong": {"probability": 0.5, "smallest_crop": 0.5, "operations": 2, "magnitude": 0.5},
    },
}


@pytest.mark.parametrize("update", [1, 3, 5])
def test_with_everything_switched_on(
    update: int, prepared_folder: Path, classes: ClassLists, states: StateFolder
) -> None:
    whole = SmallTraining(prepared_folder, classes, params=EVERYTHING)
    expected = digest(*whole.run())
    with pytest.raises(Killed):
        SmallTraining(prepared_folder, classes, states, _killed_at(update), params=EVERYTHING).run()
    np.random.seed(99)
    again = SmallTraining(prepared_folder, classes, states, params=EVERYTHING)
    model, report = again.run()
    assert digest(model, report) == expected
    assert again.judged[-1] == whole.judged[-1] != weights(model)


@pytest.mark.parametrize("epoch", [1, 2])
def test_killed_while_an_epoch_is_judged(
    epoch: int, prepared_folder: Path, classes: ClassLists, states: StateFolder, undisturbed: str
) -> None:
    with pytest.raises(Killed):
        SmallTraining(prepared_folder, classes, states, before_judging=_killed_at(epoch)).run()
    made: list[int] = []
    again = SmallTraining(prepared_folder, classes, states, before_update=made.append)
    model, report = again.run()
    assert digest(model, report) == undisturbed
    assert again.told == report.history  # whoever logs hears of every epoch
    assert len(made) == UPDATES - 3 * epoch  # no update is made again


def test_a_training_that_has_ended_makes_nothing_again(
    prepared_folder: Path, classes: ClassLists, states: StateFolder, undisturbed: str
) -> None:
    SmallTraining(prepared_folder, classes, states).run()
    made: list[int] = []
    assert digest(*SmallTraining(prepared_folder, classes, states, before_update=made.append).run()) == undisturbed
    assert made == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_signal_saves_and_stops(
    number: signal.Signals,
    num_workers: int,
    prepared_folder: Path,
    classes: ClassLists,
    states: StateFolder,
    undisturbed: str,
) -> None:
    handler = signal.getsignal(number)

    def tell(update: int) -> None:
        if update == 3:
            os.kill(os.getpid(), number)

    started = time.monotonic()
    with pytest.raises(InterruptedTraining) as stopped:
        SmallTraining(prepared_folder, classes, states, before_update=tell, num_workers=num_workers).run()
    assert stopped.value.code == 128 + number
    del stopped  # its frames hold the first training's processes
    gc.collect()
    assert signal.getsignal(number) == handler
    assert time.monotonic() - started < 30  # the whole, on a slow machine
    made: list[int] = []
    again = SmallTraining(prepared_folder, classes, states, before_update=made.append, num_workers=num_workers)
    assert digest(*again.run()) == undisturbed
    assert made == [4, 5]  # the update that ran when the signal came was ended and saved


def test_a_signal_while_an_epoch_is_judged_stops_at_once(
    prepared_folder: Path, classes: ClassLists, states: StateFolder, undisturbed: str
) -> None:
    def judge(epoch: int) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)  # does not end before the signal is heard

    started = time.monotonic()
    with pytest.raises(InterruptedTraining):
        SmallTraining(prepared_folder, classes, states, before_judging=judge).run()
    assert time.monotonic() - started < 50
    assert digest(*SmallTraining(prepared_folder, classes, states).run()) == undisturbed


def test_in_another_thread_signals_are_left_alone(prepared_folder: Path, classes: ClassLists, undisturbed: str) -> None:
    found: list[str] = []
    thread = threading.Thread(target=lambda: found.append(digest(*SmallTraining(prepared_folder, classes).run())))
    thread.start()
    thread.join()
    assert found == [undisturbed]


def test_a_damaged_state_costs_the_updates_since_the_one_before(
    prepared_folder: Path, classes: ClassLists, states: StateFolder, undisturbed: str
) -> None:
    with pytest.raises(Killed):
        SmallTraining(prepared_folder, classes, states, before_update=_killed_at(5)).run()
    latest = max(states.path.glob("state-*"))
    latest.write_bytes(latest.read_bytes()[:-100])
    made: list[int] = []
    assert digest(*SmallTraining(prepared_folder, classes, states, before_update=made.append).run()) == undisturbed
    assert made == [3, 4, 5]


def test_a_full_disk_does_not_stop_the_training(
    prepared_folder: Path,
    classes: ClassLists,
    states: StateFolder,
    undisturbed: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def refuse(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(state_folder, "write_atomically", refuse)
    assert digest(*SmallTraining(prepared_folder, classes, states).run()) == undisturbed
    assert "No space left on device" in caplog.text


def test_the_best_epoch_is_the_same_after_a_resumption(
    prepared_folder: Path, classes: ClassLists, states: StateFolder
) -> None:
    plain = SmallTraining(prepared_folder, classes)
    _, expected = plain.run()
    with pytest.raises(Killed):
        SmallTraining(prepared_folder, classes, states, before_update=_killed_at(4)).run()
    _, found = SmallTraining(prepared_folder, classes, states).run()
    assert (found.best_epoch, found.best_metrics) == (expected.best_epoch, expected.best_metrics)
    assert found.images == expected.images == 2 * 96
