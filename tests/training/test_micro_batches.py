"""A step that does not fit is made in parts, with the same gradients."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from aerofuse.data.labels import ClassLists
from aerofuse.models.aircraft_model import AircraftModel
from aerofuse.training.state_folder import StateFolder
from tests.training.small_training import SmallTraining, digest


@pytest.fixture
def room_for(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], list[int]]:
    """Make the device's memory run out beyond so many images at once, without and with checkpointing."""

    def limit(without: int, checkpointed: int = 0) -> list[int]:
        seen: list[int] = []
        forward = AircraftModel.forward

        def limited(self: AircraftModel, images: Tensor) -> dict[str, Tensor]:
            if self.training and type(images) is Tensor:  # none without values
                recomputes = self.is_gradient_checkpointing_enabled()
                seen.append(len(images))
                outputs = forward(self, images)  # draws for dropout before it fails
                if len(images) > (checkpointed if recomputes and checkpointed else without):
                    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
                return outputs
            return forward(self, images)

        monkeypatch.setattr(AircraftModel, "forward", limited)
        return seen

    return limit


def test_parts_give_the_gradients_of_the_whole(
    prepared_folder: Path, classes: ClassLists, room_for: Callable[..., list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Dropout and drop-path draw per part; without them the weights must agree but for rounding.
    monkeypatch.setattr("timm.layers.drop.drop_path", lambda x, *_, **__: x)
    monkeypatch.setattr(torch.nn.Dropout, "forward", lambda _, x: x)
    whole, whole_report = SmallTraining(prepared_folder, classes).run()
    seen = room_for(5)
    parts, parts_report = SmallTraining(prepared_folder, classes).run()
    assert seen[:3] == [16, 8, 4]  # found once ...
    assert set(seen[3:]) == {4}  # ... and kept
    for (name, one), other in zip(whole.state_dict().items(), parts.state_dict().values(), strict=True):
        torch.testing.assert_close(other, one, rtol=2e-3, atol=2e-5, msg=name)
    assert parts_report.history[0]["train_loss"] == pytest.approx(whole_report.history[0]["train_loss"], rel=1e-4)
    assert parts_report.history[0]["gradient_norm"] == pytest.approx(whole_report.history[0]["gradient_norm"], rel=1e-3)


def test_what_was_tried_in_vain_leaves_no_trace(
    prepared_folder: Path, classes: ClassLists, room_for: Callable[..., list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The random state of the attempt that failed is put back: as if the parts had been known from the start."""
    with monkeypatch.context():
        room_for(4)
        found = digest(*SmallTraining(prepared_folder, classes).run())
    monkeypatch.undo()
    monkeypatch.setattr("aerofuse.training.micro_batches.MicroBatches.parts", _parts_of_four)
    assert digest(*SmallTraining(prepared_folder, classes).run()) == found


def _parts_of_four(_: object, batch: tuple[Tensor, dict[str, Tensor]]) -> Any:
    images, targets = batch
    for start in range(0, len(images), 4):
        yield images[start : start + 4], {task: values[start : start + 4] for task, values in targets.items()}


def test_then_checkpointing_is_raised(
    prepared_folder: Path, classes: ClassLists, room_for: Callable[..., list[int]], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    seen = room_for(0, 8)
    SmallTraining(prepared_folder, classes).run()
    assert seen[:7] == [16, 8, 4, 2, 1, 16, 8]
    assert set(seen[7:]) == {8}
    assert "run in parts of 8" in caplog.text
    assert "every unit of the backbones is computed again" in caplog.text


@pytest.mark.parametrize(("policy", "tried"), [("fail", [16]), ("split", [16, 8, 4, 2, 1])])
def test_it_ends_with_what_would_fit(
    policy: str, tried: list[int], prepared_folder: Path, classes: ClassLists, room_for: Callable[..., list[int]]
) -> None:
    seen = room_for(0, 99)
    training = SmallTraining(prepared_folder, classes, params={"on_out_of_memory": policy})
    with pytest.raises(MemoryError, match=r"no room for \d+ images? at once \(CUDA out of memory.*smaller images"):
        training.run()
    assert seen == tried


@pytest.mark.slow
def test_a_resumed_training_goes_on_in_the_same_parts(
    prepared_folder: Path, classes: ClassLists, room_for: Callable[..., list[int]], tmp_path: Path
) -> None:
    room_for(0, 8)
    expected = digest(*SmallTraining(prepared_folder, classes).run())
    states = StateFolder(tmp_path / "key")
    states.path.mkdir()

    def kill(update: int) -> None:
        if update == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        SmallTraining(prepared_folder, classes, states, before_update=kill).run()
    seen = room_for(0, 8)
    assert digest(*SmallTraining(prepared_folder, classes, states).run()) == expected
    assert set(seen) == {8}


def test_other_errors_are_not_taken_for_it(
    prepared_folder: Path, classes: ClassLists, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: AircraftModel, images: Tensor) -> dict[str, Tensor]:
        raise RuntimeError("shape mismatch")

    monkeypatch.setattr(AircraftModel, "forward", fail)
    with pytest.raises(RuntimeError, match="shape mismatch"):
        SmallTraining(prepared_folder, classes).run()


def test_a_loss_that_is_not_finite_stops_with_the_names_of_its_photos(
    prepared_folder: Path, classes: ClassLists, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    states = StateFolder(tmp_path / "key")
    states.path.mkdir()
    forward = AircraftModel.forward
    calls: list[int] = []

    def spoiled(self: AircraftModel, images: Tensor) -> dict[str, Tensor]:
        outputs = forward(self, images)
        calls.append(1)
        return outputs | {"clarity": outputs["clarity"] * float("nan")} if len(calls) == 6 else outputs

    monkeypatch.setattr(AircraftModel, "forward", spoiled)
    with pytest.raises(FloatingPointError, match=r"clarity nan, .*in epoch 1, batch 5.*\.png"):
        SmallTraining(prepared_folder, classes, states).run()
    assert '"batch": 5' in (states.path / "not_finite.json").read_text()
    state = states.load()  # the last good one
    assert state is not None
    assert state["progress"]["totals"]["updates"] == 2
