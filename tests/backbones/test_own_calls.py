"""What hangs on a module of a network is called, with checkpointing off and on, as if the network ran itself."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.distributed.fsdp import fully_shard
from torch.multiprocessing.spawn import spawn

from aerofuse.backbones.backbone import Backbone
from aerofuse.backbones.families import FAMILIES
from aerofuse.checkpointing.policy import RecomputeAll, Segments, Selective
from aerofuse.checkpointing.unit_calls import module_of
from tests.backbones.conftest import SMALLEST, chains_of, shrunken_backbone, small_batch


def places(network: nn.Module) -> list[str]:
    """The last module of each class that holds others: the network itself, stages, rows of blocks, blocks, parts."""
    return list({type(module): name for name, module in network.named_modules() if list(module.children())}.values())


def doubled(_module: nn.Module, _inputs: object, outputs: Tensor) -> Tensor:
    return 2 * outputs


def override(module: nn.Module) -> None:
    forward = module.forward
    module.forward = lambda *inputs: 2 * forward(*inputs)


# The smallest two of those whose blocks are cut into halves, and one of the others; `make test-long` has all.
@pytest.mark.parametrize(
    "family",
    [pytest.param(name, marks=() if name in ("vit", "convnext", "resnet") else pytest.mark.slow) for name in FAMILIES],
)
def test_a_hook_anywhere_is_called(family: str) -> None:
    images, backbone = small_batch(SMALLEST[family]), shrunken_backbone(family)
    names = places(backbone.model)
    assert "" in names
    for name in names:
        handle = backbone.model.get_submodule(name).register_forward_hook(doubled)
        for policy in (None, RecomputeAll(), Selective()):
            backbone.checkpointing = policy
            assert_like_the_network(backbone, images, (name, policy))
        handle.remove()


def assert_like_the_network(backbone: Backbone, images: Tensor, what: object) -> None:
    state = {name: value.clone() for name, value in backbone.state_dict().items()}
    found: list[list[Tensor]] = []
    for run in (backbone.model, backbone):
        backbone.load_state_dict(state)
        torch.manual_seed(2)
        output = run(images)
        gradients = torch.autograd.grad(output.square().sum(), list(backbone.parameters()), allow_unused=True)
        found.append([output, *(gradient for gradient in gradients if gradient is not None)])
    backbone.load_state_dict(state)
    assert len(found[0]) == len(found[1]) > 1, what
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True)), what


@pytest.mark.parametrize("family", ["vit", "swin", "swin3d", "maxvit", "convnext", "resnet"])
def test_another_forward_is_called(family: str) -> None:
    backbone, images = shrunken_backbone(family), small_batch(SMALLEST[family])
    override(a_block(backbone, images)[1])
    for policy in (None, RecomputeAll(), Selective(), Segments(2)):
        backbone.checkpointing = policy
        assert_like_the_network(backbone, images, family)


def a_block(backbone: Backbone, images: Tensor) -> tuple[str, nn.Module]:
    """The second of its blocks, and its name."""
    names = (module_of(unit.name) for chain in chains_of(backbone, images) for unit in chain)
    blocks = list(dict.fromkeys(name for name in names if re.search(r"\d(\.(conv|attn_\w+))?$", name)))
    return blocks[1], backbone.get_submodule(blocks[1])


class OwnBlock(nn.Module):
    """A user's module in place of a block."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.inner = block

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.inner(inputs)
        return outputs.clamp(-1, 1)


def replace(backbone: Backbone, name: str, module: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(backbone.get_submodule(parent), last, module)


@pytest.mark.parametrize("wrap", [OwnBlock, checkpoint_wrapper], ids=["own", "wrapped"])
def test_a_block_in_place_of_the_librarys_is_called(family: str, wrap: Callable[[nn.Module], nn.Module]) -> None:
    backbone, images = shrunken_backbone(family), small_batch(SMALLEST[family])
    name, block = a_block(backbone, images)
    replace(backbone, name, wrap(block))
    assert_like_the_network(backbone, images, name)
    backbone.enable_gradient_checkpointing(segments=2)
    assert_like_the_network(backbone, images, name)


@pytest.mark.timed
@pytest.mark.parametrize(
    "setting", [{"policy": "recompute_all"}, {"segments": 2}, {"budget": 0.9}], ids=["all", "segments", "budget"]
)
def test_a_hook_sees_no_batch_but_the_users(setting: dict[str, Any]) -> None:
    """It asks for a value, as one that logs does; and `momentum=None` makes BatchNorm ask for one."""
    backbone, images = shrunken_backbone("resnet"), torch.randn(4, 3, 64, 64)
    torch.nn.init.ones_(backbone.model.get_submodule("bn1").weight)  # type: ignore[arg-type]
    backbone.model.get_submodule("bn1").momentum = None  # type: ignore[assignment]
    seen: list[float] = []
    backbone.model.get_submodule("layer1.0").register_forward_hook(lambda *values: seen.append(values[2].sum().item()))
    assert_like_the_network(backbone, images, "without")
    once = seen[-1]
    seen.clear()
    backbone.enable_gradient_checkpointing(**setting)
    assert_like_the_network(backbone, images, setting)
    assert set(seen) == {once}
    assert len(seen) <= 3  # by the network itself, and twice where the block is computed again


def _sharded_gradients(rank: int, folder: str) -> None:
    """Of the first of two processes, by policy: whether they are those without checkpointing."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    expected: list[Tensor] = []
    answers: dict[str, bool] = {}
    for policy in (None, RecomputeAll(), Segments(3)):
        backbone = shrunken_backbone("convnext")
        backbone.checkpointing = policy
        for name in ("stages.1.blocks.0", "stages.2.blocks.0", "stages.2.blocks.1"):
            fully_shard(backbone.model.get_submodule(name))
        fully_shard(backbone)
        torch.manual_seed(rank)
        outputs = backbone(torch.randn(2, 3, 64, 64))
        outputs.square().mean().backward()
        found = [outputs.detach(), *(parameter.grad.full_tensor() for parameter in backbone.parameters())]  # type: ignore[union-attr]
        if policy is None:
            expected = found
        answers[str(policy)] = all(torch.equal(*pair) for pair in zip(found, expected, strict=True))
    Path(folder, f"{rank}.json").write_text(json.dumps(answers))
    with pytest.raises(ValueError, match=r"in shares.*before it is sharded"):
        backbone.enable_gradient_checkpointing(budget=0.8)(torch.randn(2, 3, 64, 64))
    distributed.destroy_process_group()


@pytest.mark.slow
def test_blocks_in_shares(tmp_path: Path) -> None:
    spawn(_sharded_gradients, args=(str(tmp_path),), nprocs=2)
    for rank in (0, 1):
        assert set(json.loads((tmp_path / f"{rank}.json").read_text()).values()) == {True}
