"""What autograd saves waits in host memory: what is moved, what stays, when it comes back, and what is refused."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from aerofuse import enable_gradient_checkpointing
from aerofuse.checkpointing import offload
from aerofuse.checkpointing.offload import HostCopy, run_offloaded
from aerofuse.checkpointing.steps import ChainPlan
from aerofuse.checkpointing.tensors import storage_key
from tests.checkpointing.networks import Plain, Row, network_and_images
from tests.checkpointing.test_follow import activation_bytes, assert_same, follow, step


@pytest.fixture
def every_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offload, "LEAST_BYTES", 1)


@pytest.fixture
def moved(every_size: None, monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """Return the storages that are copied to host memory from here on, and hold them."""
    found: list[Tensor] = []

    class Noting(HostCopy):
        def __init__(self, whole: Tensor) -> None:
            found.append(whole)
            super().__init__(whole)

    monkeypatch.setattr(offload, "HostCopy", Noting)
    return found


def offloaded(name: str) -> tuple[nn.Module, Tensor]:
    network, images = network_and_images(name)
    return enable_gradient_checkpointing(network, policy="offload"), images


@pytest.mark.usefixtures("every_size")
def test_what_is_held_does_not_grow_with_the_depth() -> None:
    images = torch.randn(2, 3, 32, 32)
    short, long = Row(6).train(), Row(12).train()
    before = activation_bytes(short, images)
    for network in (short, long):
        follow(network, images, ChainPlan.offload_all)
    assert activation_bytes(long, images) == activation_bytes(short, images) < 0.5 * before


def test_a_storage_is_moved_once_and_no_tensor_of_a_module(moved: list[Tensor]) -> None:
    network, images = offloaded("Plain")
    network(images)
    # A ReLU saves its result, which the next convolution saves, too. The last layer's stays.
    keys = [storage_key(whole) for whole in moved]
    assert len(set(keys)) == len(keys)
    own = {storage_key(tensor) for tensor in (*network.parameters(), *network.buffers())}
    assert keys
    assert not own & set(keys)


def test_views_are_moved_with_what_they_are_of(moved: list[Tensor]) -> None:
    class Halves(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            one, other = (2 * x).chunk(2, dim=-1)
            return one.transpose(0, 1) * other.transpose(0, 1)

    x = torch.randn(4, 6, requires_grad=True)
    run_offloaded(Halves(), (), x).sum().backward()
    found = x.grad
    x.grad = None
    Halves()(x).sum().backward()
    assert torch.equal(found, x.grad)  # type: ignore[arg-type]
    assert [whole.numel() for whole in moved] == [x.numel()]


def test_small_tensors_stay(moved: list[Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offload, "LEAST_BYTES", 64)
    for length, count in ((15, 0), (16, 1)):
        run_offloaded(torch.exp, (), torch.zeros(length, requires_grad=True)).sum().backward()
        assert len(moved) == count


@pytest.mark.usefixtures("every_size")
@pytest.mark.parametrize("keeps", [True, False])
def test_the_users_hooks_see_what_they_saw(keeps: bool) -> None:
    seen: list[tuple[int, ...]] = []

    def pack(tensor: Tensor) -> Any:
        seen.append(tuple(tensor.shape))
        return tensor if keeps else (tensor.clone(),)

    def unpack(packed: Any) -> Tensor:
        found: Tensor = packed if keeps else packed[0]
        seen.append(tuple(found.shape))
        return found

    def run(network: nn.Module, images: Tensor) -> Tensor:
        with saved_tensors_hooks(pack, unpack):
            output: Tensor = network(images)
        return output

    network, images = offloaded("Row")
    assert_same(network, images, run)
    seen.clear()
    step(network, images, run)
    found = seen.copy()
    seen.clear()
    step(network_and_images("Row")[0], images, run)
    assert found == seen


def an_output(network: nn.Module, name: str) -> list[Tensor]:
    found: list[Tensor] = []
    network.get_submodule(name).register_forward_hook(lambda *values: found.append(values[2]))
    return found


@pytest.mark.usefixtures("every_size")
@pytest.mark.parametrize("what", ["an activation", "a weight"])
def test_what_is_changed_in_place_is_refused(what: str) -> None:
    network, images = offloaded("Row")
    found = an_output(network, "stage.0")
    loss = network(images).sum()
    with torch.no_grad():
        (found[0] if what == "an activation" else network.get_parameter("stage.1.conv2.weight")).mul_(2)
    with pytest.raises(RuntimeError, match="was changed in place after it was saved"):
        loss.backward()


@pytest.mark.usefixtures("every_size")
def test_a_unit_is_there_before_its_backward_pass_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    network, images = offloaded("Row")
    events: list[str] = []
    real_fetch, real_get = HostCopy.fetch, HostCopy.get

    def fetch(copy: HostCopy) -> None:
        if copy._on_device is None:
            events.append("fetch")
        real_fetch(copy)

    def get(copy: HostCopy) -> Tensor:
        events.append("get")
        return real_get(copy)

    monkeypatch.setattr(HostCopy, "fetch", fetch)
    monkeypatch.setattr(HostCopy, "get", get)

    def note(number: int, output: Tensor) -> None:
        output.register_hook(lambda _: events.append(f"gradient {number}"))

    for number in range(3):
        network.get_submodule(f"stage.{number}").register_forward_hook(
            lambda _module, _inputs, output, number=number: note(number, output)
        )
    network(images).sum().backward()
    for number in (2, 1):
        backward = events[events.index(f"gradient {number}") + 1 : events.index(f"gradient {number - 1}")]
        # The unit before is fetched at once, and what the unit itself asks for is there.
        assert backward == [*backward.count("fetch") * ["fetch"], *backward.count("get") * ["get"]]
        assert len(set(backward)) == 2


class Streams:
    """Stands for `torch.cuda`, and notes who waits for what."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self._computing, self._copying = _Stream("computing", self.events), _Stream("copying", self.events)

    def Stream(self, _device: torch.device) -> _Stream:  # noqa: N802
        return self._copying

    def current_stream(self, _device: torch.device) -> _Stream:
        return self._computing

    def stream(self, stream: _Stream) -> AbstractContextManager[None]:
        assert stream is self._copying
        return nullcontext()


class _Stream:
    def __init__(self, name: str, events: list[str]) -> None:
        self.name, self._events = name, events

    def wait_stream(self, other: _Stream) -> None:
        self._events.append(f"{self.name} waits for {other.name}")

    def record_event(self) -> str:
        self._events.append("a copy")
        return f"copy {self._events.count('a copy')}"

    def wait_event(self, event: str) -> None:
        self._events.append(f"{self.name} waits for {event}")


@pytest.mark.parametrize("is_asked_for", [True, False])
def test_nothing_is_freed_or_read_before_its_copy_has_ended(
    is_asked_for: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    streams = Streams()
    monkeypatch.setattr(torch, "get_device_module", lambda device: streams)
    offload._copying_stream.cache_clear()
    x = torch.randn(5)
    expected = x.clone()
    copy = HostCopy(x)
    copy.leave()
    x.zero_()
    copy.fetch()
    if is_asked_for:
        assert torch.equal(copy.get(), expected)
        assert torch.equal(copy.get(), expected)
    del copy
    there = ["copying waits for computing", "a copy", "computing waits for copy 1"]
    assert streams.events == [*there, "copying waits for computing", "a copy", "computing waits for copy 2"]
    offload._copying_stream.cache_clear()


@pytest.mark.usefixtures("every_size")
def test_two_backward_passes_over_one_graph_and_second_derivatives() -> None:
    def twice(network: nn.Module, images: Tensor) -> Tensor:
        output: Tensor = network(images)
        output.sum().backward(retain_graph=True)
        return output

    def penalised(network: nn.Module, images: Tensor) -> Tensor:
        images = images.clone().requires_grad_()
        output: Tensor = network(images)
        (gradient,) = torch.autograd.grad(output.sum(), images, create_graph=True)
        return output + gradient.square().mean()

    network, images = offloaded("Row")
    assert_same(network, images, twice)
    assert_same(network, images, penalised)


@pytest.mark.usefixtures("every_size")
def test_a_graph_that_is_not_walked_to_its_end() -> None:
    network, images = offloaded("Plain")
    found = an_output(network, "2")
    output = network(images)
    (gradient,) = torch.autograd.grad(output.sum(), found[0])
    plain, _ = network_and_images("Plain")
    found = an_output(plain, "2")
    (expected,) = torch.autograd.grad(plain(images).sum(), found[0])
    assert torch.equal(gradient, expected)


def test_it_goes_with_a_budget() -> None:
    with pytest.raises(ValueError, match="offload=True goes with a budget"):
        enable_gradient_checkpointing(Plain(), policy="selective", offload=True)
