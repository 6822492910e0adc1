"""A training from shards is the training from one file, bit by bit, and goes on where it was stopped."""

from __future__ import annotations

from pathlib import Path

import pytest

from aerofuse.data.labels import ClassLists
from aerofuse.data.store import PhotoStore
from aerofuse.training.state_folder import StateFolder
from tests.training.small_training import SmallTraining, digest


@pytest.fixture(autouse=True)
def _kept_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))


class _Stopped(BaseException):
    """Stands for SIGKILL."""


def _stop(update: int) -> None:
    if update == 5:  # the last of the second epoch, of which a state was saved
        raise _Stopped


@pytest.mark.parametrize("num_workers", [0, 2])
def test_shards_give_the_weights_and_scores_of_one_file(
    num_workers: int, prepared_folder: Path, sharded_folder: Path, classes: ClassLists
) -> None:
    assert len(PhotoStore(sharded_folder / "train.arrow").shard_lengths()) > 4
    expected = digest(*SmallTraining(prepared_folder, classes).run())
    assert digest(*SmallTraining(sharded_folder, classes, num_workers=num_workers).run()) == expected


@pytest.mark.parametrize("shuffle_shards", [None, 2])
def test_a_training_from_shards_goes_on_in_the_middle_of_an_epoch(
    shuffle_shards: int | None, sharded_folder: Path, classes: ClassLists, tmp_path: Path
) -> None:
    params = {"shuffle_shards": shuffle_shards}
    expected = digest(*SmallTraining(sharded_folder, classes, params=params).run())
    states = StateFolder(tmp_path / "key")
    states.path.mkdir()
    with pytest.raises(_Stopped):
        SmallTraining(sharded_folder, classes, states, _stop, params=params).run()
    made: list[int] = []
    found = digest(*SmallTraining(sharded_folder, classes, states, made.append, params=params).run())
    assert found == expected
    assert made == [5]


def test_shuffling_within_shards_is_another_training(sharded_folder: Path, classes: ClassLists) -> None:
    digests = {
        digest(*SmallTraining(sharded_folder, classes, params={"shuffle_shards": number}).run()) for number in (None, 2)
    }
    assert len(digests) == 2
