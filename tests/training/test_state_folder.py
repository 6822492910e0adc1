"""States on disk: whole or not at all, the one before where the latest is damaged, one trainer at a time."""

from __future__ import annotations

import errno
import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from aerofuse.training import state_folder
from aerofuse.training.state_folder import StateFolder, StateInUseError


def _state(number: int) -> dict[str, object]:
    return {"number": number, "weights": torch.full((3,), float(number))}


@pytest.fixture
def folder(tmp_path: Path) -> StateFolder:
    states = StateFolder(tmp_path / "stage" / "key")
    states.path.mkdir(parents=True)
    return states


def test_the_latest_is_read_and_two_are_kept(folder: StateFolder) -> None:
    assert folder.load() is None
    for number in range(5):
        assert folder.save(_state(number)) > 0
    assert len(list(folder.path.glob("state-*"))) == 2
    state = folder.load()
    assert state is not None
    assert state["number"] == 4
    assert torch.equal(state["weights"], torch.full((3,), 4.0))


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:100] + b"x" + path.read_bytes()[101:]),
    ],
)
def test_a_damaged_state_is_passed_over(
    folder: StateFolder, damage: Callable[[Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    folder.save(_state(1))
    folder.save(_state(2))
    latest = max(folder.path.glob("state-*"))
    damage(latest)
    state = folder.load()
    assert state is not None
    assert state["number"] == 1
    assert f"{latest} is damaged" in caplog.text


def test_code_in_a_state_is_not_run(folder: StateFolder) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
            return os.system, ("false",)

    folder.save({"evil": Evil()})
    with pytest.raises(Exception, match=r"[Ww]eights[_ ]only"):
        folder.load()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_where_it_cannot_be_written_the_one_before_stays(
    folder: StateFolder, number: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder.save(_state(1))

    def refuse(path: Path, content: bytes) -> None:
        path.with_name(path.name + ".partial").write_bytes(content[:10])
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        patched.setattr(state_folder, "write_atomically", refuse)
        folder.save(_state(2))
    assert os.strerror(number) in caplog.text
    state = folder.load()
    assert state is not None
    assert state["number"] == 1


def _hold(path: Path, held: multiprocessing.synchronize.Event, let_go: multiprocessing.synchronize.Event) -> None:
    with StateFolder(path).locked():
        held.set()
        let_go.wait(30)


def test_a_second_trainer_is_kept_off(folder: StateFolder) -> None:
    context = multiprocessing.get_context("spawn")
    held, let_go = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(folder.path, held, let_go))
    other.start()
    assert held.wait(60)
    with pytest.raises(StateInUseError, match=f"process {other.pid}"), folder.locked(timeout_s=0.1):
        pass
    other.kill()  # a lock dies with its process
    other.join()
    with folder.locked(timeout_s=5):
        pass


def test_what_other_trainings_left_is_removed_but_for_the_latest(folder: StateFolder) -> None:
    others = [StateFolder(folder.path.parent / f"other{number}") for number in range(6)]
    for age, other in enumerate(others):
        other.path.mkdir()
        other.save(_state(age))
        if age == 5:
            other.end()
        os.utime(other.path, (1e9 + age, 1e9 + age))
    with others[0].locked():  # the oldest runs
        os.utime(others[0].path, (1e9, 1e9))
        folder.forget_others()
    left = {path.name for path in folder.path.parent.iterdir()}
    assert left == {"key", "other0", "other3", "other4"}  # the one that has ended is gone


def test_a_training_that_has_ended_keeps_its_last_state(folder: StateFolder) -> None:
    for number in range(3):
        folder.save(_state(number))
    folder.end()
    state = folder.load()
    assert state is not None
    assert state["number"] == 2
    assert len(list(folder.path.glob("state-*"))) == 1
