"""Nested plans on small chains: the same bits, the promised work, clear errors."""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Callable
from functools import reduce

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from aerofuse.checkpointing.chain import Unit, run_units
from aerofuse.checkpointing.recompute_graph import RecomputeGraph
from aerofuse.checkpointing.selective import run_selective
from aerofuse.checkpointing.steps import ChainPlan, Recompute, SaveAll, SaveSome
from aerofuse.memory.counter import LiveBytes
from aerofuse.memory.report import Kind
from tests.checkpointing.planned import run_planned

FEATURES = 6


class Block(nn.Module):
    """A bit of everything that has gone wrong somewhere: normalisation, activation in place, dropout, a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(FEATURES, FEATURES)
        self.norm = nn.BatchNorm1d(FEATURES, momentum=None)
        self.scale = nn.Parameter(torch.ones(FEATURES))
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        y = functional.silu(self.norm(self.linear(x)), inplace=True)
        y = functional.dropout(y, 0.3, self.training) * self.scale
        y += x
        return y.relu_()


def blocks(count: int) -> nn.ModuleList:
    torch.manual_seed(0)
    return nn.ModuleList(Block() for _ in range(count)).train()


def chain_of(modules: nn.ModuleList) -> list[Unit]:
    return [Unit.of(str(number), module) for number, module in enumerate(modules)]


def step(modules: nn.ModuleList, plan: ChainPlan | None) -> list[Tensor]:
    x = torch.randn(8, FEATURES, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(2)
    chain = chain_of(modules)
    output = run_units(chain, x) if plan is None else run_planned(chain, plan, x)
    output.square().sum().backward()
    gradients = [parameter.grad for parameter in modules.parameters() if parameter.grad is not None]
    return [output.detach(), *gradients, *modules.buffers(), torch.get_rng_state()]


PLANS = {
    "selective": ChainPlan.selective(6),
    "recompute": ChainPlan.recompute_all(6),
    "one range": ChainPlan((Recompute(tuple(SaveAll(unit) for unit in range(6))),)),
    "selective in a range": ChainPlan(
        (SaveAll(0), Recompute((SaveSome(1), SaveAll(2), SaveSome(3))), SaveSome(4), SaveAll(5))
    ),
    "range in a range": ChainPlan(
        (Recompute((SaveAll(0), Recompute((SaveAll(1), SaveAll(2))), SaveAll(3))), SaveAll(4), SaveAll(5))
    ),
    "three deep": ChainPlan(
        (
            Recompute(
                (
                    SaveAll(0),
                    Recompute((SaveSome(1), Recompute((SaveAll(2), SaveSome(3))), SaveAll(4))),
                    Recompute((SaveSome(5),)),
                )
            ),
        )
    ),
    "linked": ChainPlan((SaveSome(0, ("linear.0",), count=4), SaveAll(4), SaveAll(5))),
    "linked, expensive saved": ChainPlan((SaveAll(0), SaveSome(1, count=5))),
    "linked, no cache": ChainPlan(
        (SaveAll(0), SaveSome(1, ("batch_norm.0",), no_cache=True, count=4), SaveSome(5, ()))
    ),
    "linked in a range": ChainPlan(
        (Recompute((SaveSome(0, (), count=3), Recompute((SaveSome(3, ("mul.0",), count=2),)))), SaveAll(5))
    ),
}


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_a_nested_plan_changes_no_bit(plan: ChainPlan) -> None:
    expected = step(blocks(6), None)
    found = step(blocks(6), plan)
    assert len(found) == len(expected) == 1 + 6 * 5 + 6 * 3 + 1
    for number, (one, other) in enumerate(zip(expected, found, strict=True)):
        assert torch.equal(one, other), number


def test_hooks_of_the_output_come_before_the_second_run() -> None:
    """`fully_shard` gathers the weights of a module with such a hook, that it sets after the forward pass."""
    modules = blocks(2)
    output = run_planned(chain_of(modules), ChainPlan.recompute_all(2), torch.randn(8, FEATURES))
    seen: list[list[object]] = []
    output.register_hook(lambda _: seen.append([module.calls for module in modules]))
    output.sum().backward()
    assert seen == [[1, 1]]
    assert [module.calls for module in modules] == [2, 2]


@pytest.mark.parametrize(
    ("name", "calls"),
    [
        ("selective", [1] * 6),
        ("recompute", [2] * 6),
        ("one range", [2] * 6),
        ("selective in a range", [1, 2, 2, 2, 1, 1]),
        ("range in a range", [2, 3, 3, 2, 1, 1]),
        # A range's last tensors are all that it wants of its second run: the run of an inner range may be cut short.
        ("three deep", [2, 3, 4, 4, 3, 3]),
    ],
)
def test_a_unit_runs_as_often_as_ranges_hold_it(name: str, calls: list[int]) -> None:
    modules = blocks(6)
    step(modules, PLANS[name])
    assert [module.calls for module in modules] == calls


def test_a_graph_that_is_dropped_frees_everything() -> None:
    for plan in PLANS.values():
        x = torch.randn(8, FEATURES)
        chain = chain_of(blocks(6))
        output = run_planned(chain, plan, x)
        inner = weakref.ref(x)
        del x, output
        assert inner() is None


def test_a_second_run_that_is_stopped_leaves_nothing_behind() -> None:
    gc.collect()
    gc.disable()
    try:
        step(blocks(2), ChainPlan((Recompute((SaveSome(0, save=()), SaveSome(1, save=()))),)))
        assert not [found for found in gc.get_objects() if isinstance(found, RecomputeGraph)]
    finally:
        gc.enable()


def test_a_selective_unit_computes_only_what_is_asked_for() -> None:
    seen: list[str] = []

    def cheap(x: Tensor) -> Tensor:
        seen.append("cheap")
        return x

    class Counted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(FEATURES, FEATURES)

        def forward(self, x: Tensor) -> Tensor:
            output: Tensor = self.linear(functional.gelu(self.linear(cheap(x))))
            return output

    module = Counted()
    output = run_planned([Unit.of("0", module)], ChainPlan((SaveSome(0),)), torch.randn(3, FEATURES))
    output.sum().backward()
    assert seen == ["cheap"]


def test_a_unit_without_a_cache_makes_each_result_anew() -> None:
    class MLP(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.sigmoid().tanh().exp()  # each saves its result; the last one is the output

    def counted(no_cache: bool) -> int:
        made: list[str] = []

        def watch(name: str, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
            def counted_one(*arguments: Tensor, **keywords: object) -> Tensor:
                made.append(name)
                return function(*arguments, **keywords)

            return counted_one

        x = torch.randn(3, FEATURES, requires_grad=True)
        run_selective(MLP(), x, save=(), no_cache=no_cache, watch=watch).sum().backward()
        return len(made)

    assert counted(no_cache=False) == 2
    assert counted(no_cache=True) == 3  # the sigmoid once more, for itself


@pytest.mark.parametrize("no_cache", [False, True])
def test_linked_units_save_the_first_input_alone(no_cache: bool) -> None:
    x = torch.randn(64, 64, requires_grad=True)
    weight = torch.randn(64, 64)

    def block(x: Tensor) -> Tensor:
        return x + (x.sigmoid() @ weight).tanh()  # tanh saves its result, which the product leads to

    def peak_of(count: int) -> int:
        (expected,) = torch.autograd.grad(reduce(lambda x, run: run(x), [block] * count, x).sum(), x)
        with LiveBytes(nn.Module(), inputs=[x, weight]) as counter:
            output = run_selective(block, x, save=("matmul.0",), no_cache=no_cache, linked=[block] * (count - 1))
            assert counter.bytes_by_kind[Kind.ACTIVATIONS] == (count + 1) * x.nbytes  # a product each, and the output
            (found,) = torch.autograd.grad(output.sum(), x)
        assert torch.equal(found, expected)
        return counter.report().peak_activation_bytes

    # One product more each: the inputs of later units are not all there at once in the backward pass either.
    assert [peak_of(count) - peak_of(3) for count in (4, 6)] == [x.nbytes, 3 * x.nbytes]


def test_a_selective_unit_lets_go_while_it_runs() -> None:
    alive: list[bool] = []
    storages: list[weakref.ref[torch.UntypedStorage]] = []

    def run(x: Tensor) -> Tensor:
        first = x.sigmoid()
        storages.append(weakref.ref(first.untyped_storage()))
        second = first.tanh()
        del first
        alive.append(storages[0]() is not None)
        return second.exp()

    x = torch.randn(3, FEATURES, requires_grad=True)
    output = run_selective(run, x, save=())
    assert alive == [False]
    output.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, torch.autograd.grad(x.sigmoid().tanh().exp().sum(), x)[0])


def linear_unit(function: Callable[[Tensor], Tensor]) -> list[Unit]:
    return [Unit("0", function, ())]


def test_a_range_that_is_not_deterministic_is_named() -> None:
    runs: list[int] = []

    def fickle(x: Tensor) -> Tensor:
        runs.append(1)
        return x.exp().exp() if len(runs) == 1 else x.exp()[:2].exp()

    output = run_planned(
        linear_unit(fickle), ChainPlan((Recompute((SaveAll(0),)),)), torch.randn(4, requires_grad=True)
    )
    with pytest.raises(RuntimeError, match=r"saved \[2\].* ran again, .*\[4\].* at first: it is not deterministic"):
        output.sum().backward()


def test_a_range_that_saves_less_the_second_time_is_named() -> None:
    runs: list[int] = []

    def fickle(x: Tensor) -> Tensor:
        runs.append(1)
        return x.exp().exp() if len(runs) == 1 else x.exp()

    output = run_planned(
        linear_unit(fickle), ChainPlan((Recompute((SaveAll(0),)),)), torch.randn(4, requires_grad=True)
    )
    with pytest.raises(RuntimeError, match="saved fewer tensors"):
        output.sum().backward()


@pytest.mark.parametrize("step_type", [SaveSome, lambda unit: Recompute((SaveAll(unit),))])
def test_what_is_changed_in_place_before_the_backward_pass_is_named(step_type: Callable[[int], SaveAll]) -> None:
    weight = torch.ones(4, requires_grad=True)
    x = torch.randn(4)
    output = run_planned(linear_unit(lambda x: x * weight), ChainPlan((step_type(0),)), x)
    x.add_(1)
    with pytest.raises(RuntimeError, match="changed in place"):
        output.sum().backward()


def test_an_input_that_is_changed_in_place_inside_a_selective_unit() -> None:
    """Nodes written before the change still see what was there before."""

    def run(x: Tensor) -> Tensor:
        kept = x.clone().matmul(torch.eye(4))
        first = kept.sigmoid()
        kept.mul_(3)
        return first.matmul(first.t()) + kept.sigmoid().matmul(first.t())

    x = torch.randn(4, 4, requires_grad=True)
    (expected,) = torch.autograd.grad(run(x).square().sum(), x)
    (found,) = torch.autograd.grad(run_planned(linear_unit(run), ChainPlan((SaveSome(0),)), x).square().sum(), x)
    assert torch.equal(found, expected)


class Noisy(nn.Module):
    """Ends with a call that draws its noise after autograd has saved the tensor for it."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(FEATURES, FEATURES)

    def forward(self, x: Tensor) -> Tensor:
        return functional.rrelu(self.linear(x), training=True)


@pytest.mark.parametrize("name", PLANS)
def test_noise_that_a_call_draws_after_it_was_saved(name: str) -> None:
    torch.manual_seed(0)
    noisy = nn.ModuleList(Noisy() for _ in range(6))
    expected = step(copy.deepcopy(noisy), None)
    assert all(map(torch.equal, step(noisy, PLANS[name]), expected))


class Careful(nn.Module):
    """Calls torch when it is interrupted, also by the end of a second run."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(FEATURES, FEATURES)

    def forward(self, x: Tensor) -> Tensor:
        try:
            output: Tensor = self.linear(self.linear(x).sigmoid())
            return output
        except BaseException:
            self.linear(x).square()
            raise


@pytest.mark.parametrize("name", ["recompute", "one range", "range in a range"])
def test_a_unit_may_clean_up_after_a_second_run_that_stops(name: str) -> None:
    torch.manual_seed(0)
    careful = nn.ModuleList(Careful() for _ in range(6))
    expected = step(copy.deepcopy(careful), None)
    assert all(map(torch.equal, step(careful, PLANS[name]), expected))


def test_a_product_whose_kernel_depends_on_what_learns() -> None:
    # As CaiT (arXiv 2103.17239) mixes the heads of its attention: they come last, and their stride is not 1.
    torch.manual_seed(0)
    mix, inputs = nn.Linear(4, 4), torch.randn(2, 4, 16, 16)

    def run(x: Tensor) -> Tensor:
        mixed: Tensor = mix(x.sin().permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return mixed.softmax(-1).square()

    outcomes = []
    for step in (SaveAll(0), SaveSome(0, ()), SaveSome(0, (), no_cache=True), Recompute((SaveSome(0, ()),))):
        x = inputs.clone().requires_grad_()
        output = run_planned([Unit("heads", run, (mix,))], ChainPlan((step,)), x)
        outcomes.append([output, *torch.autograd.grad(output.square().sum(), [x, *mix.parameters()])])
    for found in outcomes[1:]:
        assert all(map(torch.equal, found, outcomes[0]))


@pytest.mark.parametrize("norm", [nn.BatchNorm2d, nn.InstanceNorm2d])
@pytest.mark.parametrize("save", [None, ()])
def test_running_statistics_are_updated_once(norm: Callable[..., nn.Module], save: tuple[str, ...] | None) -> None:
    module = nn.Sequential(nn.Conv2d(2, 2, 1), norm(2, affine=True, track_running_stats=True), nn.GELU())
    twin, x = copy.deepcopy(module), torch.randn(3, 2, 4, 4, requires_grad=True)
    module(x).square().sum().backward()
    run_selective(twin, x, save).square().sum().backward()
    assert all(map(torch.equal, module.buffers(), twin.buffers()))
    for one, other in zip(module.parameters(), twin.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad)  # type: ignore[arg-type]


def test_a_unit_that_catches_exceptions_does_not_catch_the_end_of_its_second_run() -> None:
    def careful(x: Tensor) -> Tensor:
        try:
            return x.exp().exp()
        except Exception:
            return x

    x = torch.randn(4, requires_grad=True)
    run_planned(linear_unit(careful), ChainPlan((Recompute((SaveAll(0),)),)), x).sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, torch.autograd.grad(x.exp().exp().sum(), x)[0])
