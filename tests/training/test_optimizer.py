"""Which parameters move how fast, and the average that follows them."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from aerofuse.data.labels import TASKS, ClassLists
from aerofuse.models.architecture import hybrid_architecture
from aerofuse.training.optimizer import make_average, make_optimizer, make_schedule
from tests.models.architectures import baseline_architecture


def test_only_matrices_are_decayed_and_every_learning_parameter_is_there_once() -> None:
    model = baseline_architecture("swin_thin", ("type",), 0.0, 0.0, 96).build(ClassLists(tuple("ab"), ()))
    frozen = next(model.parameters())
    frozen.requires_grad_(False)
    optimizer = make_optimizer(model, 1e-3, 0.05)
    decay_of = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        if parameter is frozen:
            assert id(parameter) not in decay_of
            continue
        plain = parameter.ndim == 1 or "bias" in name
        assert decay_of[id(parameter)] == (0.0 if plain else 0.05), name


@pytest.mark.parametrize("kind", ["single_task", "multi_task", "hybrid"])
def test_the_groups_of_every_model_are_decayed_and_plain_parameters_in_the_order_of_their_names(kind: str) -> None:
    """Trained weights depend on them; the rule is written out here, beside timm's."""
    tasks = ("type",) if kind == "single_task" else TASKS
    classes = ClassLists(tuple("abc"), tuple("de"))
    if kind == "hybrid":
        model = hybrid_architecture("convnext_thin", "swin_thin", "attention", 0.1, 0.1, 96).build(classes)
    else:
        model = baseline_architecture("convnext_thin", tasks, 0.1, 0.1, 96).build(classes)
    model.train_only(set(model.parts()) - {"cnn"} if kind == "hybrid" else model.parts())
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    expected: dict[bool, list[str]] = {True: [], False: []}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decays = parameter.ndim > 1 and not name.endswith("relative_position_bias_table")
            expected[decays].append(name)
    groups = make_optimizer(model, 1e-3, 0.05).param_groups
    assert [group["weight_decay"] for group in groups] == [0.05, 0.0]
    assert [[names[id(parameter)] for parameter in group["params"]] for group in groups] == [
        expected[True],
        expected[False],
    ]


def test_the_rate_rises_linearly_then_falls_to_zero_as_a_cosine() -> None:
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=2.0)
    schedule = make_schedule(optimizer, total_steps=110, warmup_fraction=10 / 110)
    rates = []
    for _ in range(111):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert rates[:10] == pytest.approx([2.0 * (step + 1) / 11 for step in range(10)])
    assert max(rates) == rates[10] == pytest.approx(2.0)
    assert rates[60] == pytest.approx(1.0)
    assert rates[110] == pytest.approx(0.0)
    assert all(later <= earlier for earlier, later in itertools.pairwise(rates[10:]))


def test_layers_learn_the_slower_the_deeper_they_lie() -> None:
    classes = ClassLists(tuple("abc"), tuple("de"))
    model = hybrid_architecture("convnext_thin", "swin_thin", "attention", 0.1, 0.1, 96).build(classes)
    model.train_only(("transformer", "fusion", "heads"))
    groups = make_optimizer(model, 1e-3, 0.05, layer_decay=0.7).param_groups
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    rates = {names[id(parameter)]: group["lr"] for group in groups for parameter in group["params"]}
    learning = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert sorted(rates) == sorted(learning)
    assert sum(len(group["params"]) for group in groups) == len(learning)
    assert {rate for name, rate in rates.items() if name.startswith(("fusion", "heads"))} == {1e-3}
    stem = rates["transformer.model.patch_embed.proj.0.weight"]
    order = [stem] + [rates[f"transformer.model.layers.{stage}.blocks.0.mlp.fc1.weight"] for stage in range(3)]
    assert order == sorted(set(order))
    assert order[-1] <= 1e-3
    assert all(group["weight_decay"] in (0.0, 0.05) for group in groups)


def test_the_average_follows_slowly() -> None:
    model = nn.Linear(1, 1, bias=False)
    assert make_average(model, 0.0) is None
    average = make_average(model, 0.9)
    assert average is not None
    expected = float(model.weight.detach())
    for step in range(1, 60):
        with torch.no_grad():
            model.weight.fill_(float(step))
        average.update(model, step=step)
        decay = min(0.9, 1 - step**-0.75)
        expected = decay * expected + (1 - decay) * step
    assert average.module.weight.item() == pytest.approx(expected, rel=1e-4)
