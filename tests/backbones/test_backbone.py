"""The switch, wherever a backbone goes: copied, pickled, saved, frozen, distributed."""

from __future__ import annotations

import copy
import functools
import io
import json
import pickle
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, nn
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from aerofuse.backbones.backbone import Backbone, create_backbone
from aerofuse.backbones.families import FAMILIES, family_of, list_backbones
from aerofuse.checkpointing.policy import NamedPolicy, RecomputeAll, Segments, Selective
from tests.backbones.conftest import SMALLEST, shrunken_again, shrunken_backbone, small_batch

POLICIES = (RecomputeAll(), Selective())


def gradients(backbone: nn.Module, images: Tensor) -> list[Tensor]:
    """The gradients of one step from seed 2."""
    torch.manual_seed(2)
    backbone.zero_grad()
    backbone(images).square().mean().backward()
    return [parameter.grad for parameter in backbone.parameters() if parameter.grad is not None]


@functools.lru_cache(maxsize=1)
def unchecked_gradients(family: str) -> list[Tensor]:
    """Of `shrunken_backbone` on `small_batch`, without checkpointing."""
    return gradients(shrunken_backbone(family), small_batch(SMALLEST[family]))


def saved_bytes(backbone: nn.Module, images: Tensor) -> int:
    """Bytes of distinct storages that are alive because of the graph of one forward pass."""
    storages: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storages[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = backbone(images)
    total = sum(storages.values())
    del output
    return total


def same(first: list[Tensor], second: list[Tensor]) -> bool:
    return len(first) == len(second) and all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_every_family_of_the_specification_is_there() -> None:
    assert list(list_backbones()) == [
        "resnet", "mobilenet", "efficientnet", "efficientnetv2", "regnet",
        "vit", "swin", "swin3d", "maxvit", "convnext",
    ]  # fmt: skip
    assert [len(variants) for variants in list_backbones().values()] == [5, 3, 8, 3, 7, 6, 4, 3, 3, 5]


def test_a_backbone_saves_less_when_checkpointed(family: str) -> None:
    backbone, images = shrunken_backbone(family), small_batch(SMALLEST[family])
    unchecked = saved_bytes(backbone, images)
    backbone.enable_gradient_checkpointing()
    # The input of each unit alone.
    assert 0 < saved_bytes(backbone, images) < 0.6 * unchecked


@pytest.mark.parametrize("setting", [{}, {"segments": 2}, {"policy": "selective"}], ids=str)
def test_what_is_saved_may_be_put_elsewhere(family: str, setting: dict[str, Any]) -> None:
    """As `torch.autograd.graph.save_on_cpu` does."""
    backbone, images = shrunken_backbone(family), small_batch(SMALLEST[family])
    backbone.enable_gradient_checkpointing(**setting)
    storages: list[weakref.ref[torch.UntypedStorage]] = []

    def pack(tensor: Tensor) -> Tensor:
        own = isinstance(tensor, nn.Parameter) or tensor.untyped_storage()._cdata in known
        if not own:
            storages.append(weakref.ref(tensor.untyped_storage()))
        return tensor.detach().clone()

    tensors = (images, *backbone.parameters(), *backbone.buffers())
    known = {tensor.untyped_storage()._cdata for tensor in tensors}
    torch.manual_seed(2)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = backbone(images)
    assert len(storages) > 2
    output_storage = output.untyped_storage()
    assert [one for one in storages if one() not in (None, output_storage)] == []
    backbone.zero_grad()
    output.square().mean().backward()
    found = [parameter.grad for parameter in backbone.parameters() if parameter.grad is not None]
    assert same(found, unchecked_gradients(family))


def test_on_off_on(family: str) -> None:
    backbone, images = shrunken_backbone(family), small_batch(SMALLEST[family])
    assert not backbone.is_gradient_checkpointing_enabled()
    on, off = backbone.enable_gradient_checkpointing, backbone.disable_gradient_checkpointing
    for switch in (on, off, on):
        switch()
        assert backbone.is_gradient_checkpointing_enabled() is (switch == on)
        assert same(gradients(shrunken_again(backbone), images), unchecked_gradients(family))


def by_pickle(backbone: Backbone) -> Backbone:
    return pickle.loads(pickle.dumps(backbone))  # type: ignore[no-any-return]


def by_torch(backbone: Backbone) -> Backbone:
    buffer = io.BytesIO()
    torch.save(backbone, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("duplicate", "policy"),
    [
        (copy.deepcopy, RecomputeAll()),
        (copy.deepcopy, Selective()),
        (by_pickle, RecomputeAll()),
        (by_torch, Selective()),
    ],
)
def test_a_copy_computes_with_its_own_weights(
    family: str, duplicate: Callable[[Backbone], Backbone], policy: NamedPolicy
) -> None:
    backbone, images = shrunken_backbone(family), small_batch(SMALLEST[family])
    backbone.enable_gradient_checkpointing(policy=policy)
    gradients(backbone, images)  # a copy after use, too
    twin = duplicate(backbone)
    assert twin.is_gradient_checkpointing_enabled()
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.zero_()
    assert same(gradients(shrunken_again(twin), images), unchecked_gradients(family))
    assert all(not parameter.any() for parameter in backbone.parameters())


def test_an_average_of_weights_computes_with_its_own(family: str) -> None:
    backbone, images = shrunken_backbone(family).eval(), small_batch(SMALLEST[family])
    backbone.enable_gradient_checkpointing()
    average = AveragedModel(backbone)
    average.update_parameters(backbone)
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.mul_(2)
    average.update_parameters(backbone)
    expected = copy.deepcopy(backbone)
    expected.load_state_dict(average.module.state_dict())
    with torch.no_grad():
        assert torch.equal(average(images), expected(images))
        assert not torch.equal(average(images), backbone(images))


def test_state_dict_with_the_switch_on_one_side(family: str) -> None:
    backbone = shrunken_backbone(family)
    names = list(backbone.state_dict())
    backbone.enable_gradient_checkpointing()
    assert list(backbone.state_dict()) == names
    other = shrunken_backbone(family)
    other.load_state_dict(backbone.state_dict(), strict=True)
    backbone.load_state_dict(other.state_dict(), strict=True)


def test_accumulated_gradients(family: str) -> None:
    backbone, images = shrunken_backbone(family), small_batch(SMALLEST[family], batch=4)

    def accumulated() -> list[Tensor]:
        torch.manual_seed(2)
        shrunken_again(backbone).zero_grad()
        for part in images.split(2):
            (backbone(part).square().mean() / 2).backward()
        return [parameter.grad for parameter in backbone.parameters() if parameter.grad is not None] + [
            buffer.clone() for buffer in backbone.buffers()
        ]

    expected = [tensor.clone() for tensor in accumulated()]
    for policy in POLICIES:
        backbone.enable_gradient_checkpointing(policy=policy)
        assert same(accumulated(), expected)


def test_a_frozen_backbone_saves_nothing(family: str) -> None:
    backbone, images = shrunken_backbone(family).requires_grad_(False), small_batch(SMALLEST[family])
    for policy in POLICIES:
        backbone.enable_gradient_checkpointing(policy=policy)
        assert not backbone(images).requires_grad
        assert saved_bytes(backbone, images) == 0


def test_a_half_frozen_backbone(family: str) -> None:
    backbone, images = shrunken_backbone(family), small_batch(SMALLEST[family])
    for parameter in list(backbone.parameters())[::2]:
        parameter.requires_grad_(False)
    expected = [tensor.clone() for tensor in gradients(backbone, images)]
    for policy in POLICIES:
        backbone.enable_gradient_checkpointing(policy=policy)
        assert same(gradients(shrunken_again(backbone), images), expected)


def test_in_evaluation_mode_with_gradients_nothing_is_computed_again(family: str) -> None:
    backbone, images = shrunken_backbone(family).eval(), small_batch(SMALLEST[family])
    expected = [tensor.clone() for tensor in gradients(backbone, images)]
    unchecked = saved_bytes(backbone, images)
    backbone.enable_gradient_checkpointing()
    assert same(gradients(backbone, images), expected)
    assert saved_bytes(backbone, images) == unchecked


def test_without_gradients(family: str) -> None:
    backbone, images = shrunken_backbone(family), small_batch(SMALLEST[family])
    torch.manual_seed(2)
    expected = backbone(images).detach()
    backbone.enable_gradient_checkpointing()
    torch.manual_seed(2)
    with torch.no_grad():
        output = backbone(images)
    assert torch.equal(output, expected)
    assert output.grad_fn is None


def test_gradients_of_the_images_alone(family: str) -> None:
    backbone, images = shrunken_backbone(family).requires_grad_(False), small_batch(SMALLEST[family]).requires_grad_()
    found = []
    for policy in (None, *POLICIES):
        backbone.checkpointing = policy
        torch.manual_seed(2)
        found.append(torch.autograd.grad(backbone(images).square().mean(), images)[0])
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_two_backward_passes_over_one_graph(family: str) -> None:
    backbone, images = shrunken_backbone(family), small_batch(SMALLEST[family])
    for policy in POLICIES:
        backbone.enable_gradient_checkpointing(policy=policy)
        loss = backbone(images).square().mean()
        parameters = list(backbone.parameters())
        first = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        second = torch.autograd.grad(loss, parameters, allow_unused=True)
        for one, other in zip(first, second, strict=True):
            assert one is other is None or torch.equal(one, other)


def test_second_derivatives_are_refused(family: str) -> None:
    backbone, images = shrunken_backbone(family), small_batch(SMALLEST[family])
    for policy in POLICIES:
        backbone.enable_gradient_checkpointing(policy=policy)
        with pytest.raises(RuntimeError, match=r"no second derivatives.*create_graph"):
            torch.autograd.grad(backbone(images).square().mean(), list(backbone.parameters()), create_graph=True)


def _distributed_gradients(rank: int, folder: str) -> None:
    """One of two processes: the gradients of each family, on against off, and this process's against the other's."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    for family in FAMILIES:
        images = small_batch(SMALLEST[family], batch=4)[rank::2]
        answers: dict[str, bool] = {}
        expected: list[Tensor] = []
        for policy in (None, *POLICIES):
            backbone = shrunken_backbone(family)
            backbone.checkpointing = policy
            found = gradients(DistributedDataParallel(backbone), images)
            if policy is None:
                mine = torch.cat([gradient.flatten() for gradient in found])
                of_first = mine.clone()
                distributed.broadcast(of_first, src=0)
                answers["averaged"] = len(found) > 0 and torch.equal(mine, of_first)
                expected = [*found, *backbone.buffers()]
            else:
                answers[str(policy)] = same([*found, *backbone.buffers()], expected)
        # Answers alone: gradients of ten families are many.
        Path(folder, f"{family}-{rank}.json").write_text(json.dumps(answers))
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gloo")
    spawn(_distributed_gradients, args=(str(folder),), nprocs=2)
    return folder


@pytest.mark.slow
def test_two_processes_share_their_gradients(family: str, two_processes: Path) -> None:
    for rank in (0, 1):
        answers = json.loads((two_processes / f"{family}-{rank}.json").read_text())
        # Averaged over both: each has the same.
        assert answers == {"averaged": True} | dict.fromkeys(map(str, POLICIES), True)


@pytest.mark.parametrize(
    ("segments", "message"),
    [
        (0, r"segments must be a whole number from 1 on, not 0"),
        (-3, r"whole number from 1 on, not -3"),
        (2.0, r"segments must be a whole number from 1 on, not 2\.0"),
        (True, r"whole number"),
        ("4", r"whole number from 1 on, not '4'"),
    ],
)
def test_impossible_segments(family: str, segments: int, message: str) -> None:
    backbone = shrunken_backbone(family)
    backbone.enable_gradient_checkpointing(2)
    with pytest.raises(ValueError, match=message):
        backbone.enable_gradient_checkpointing(segments)
    assert backbone.is_gradient_checkpointing_enabled()
    assert backbone.checkpointing == Segments(2)


def test_more_segments_than_units(family: str) -> None:
    backbone, images = shrunken_backbone(family), small_batch(SMALLEST[family])
    with pytest.raises(ValueError, match=r"segments is 1000; the longest chain of this network has \d+ units, so 1 to"):
        backbone.enable_gradient_checkpointing(1000, example_inputs=(images,))
    backbone(images).sum().backward()  # each unit is a segment


def test_unknown_policies_and_two_at_once() -> None:
    backbone = shrunken_backbone("resnet")
    with pytest.raises(
        ValueError, match=r"unknown policy 'save_some'; known are recompute_all, selective, offload, besides"
    ):
        backbone.enable_gradient_checkpointing(policy="save_some")
    with pytest.raises(ValueError, match="give one of them"):
        backbone.enable_gradient_checkpointing(2, policy="selective")
    assert not backbone.is_gradient_checkpointing_enabled()


def test_an_unknown_variant_has_near_names() -> None:
    with pytest.raises(ValueError, match=r"unknown backbone 'convnext_smal'; near names: convnext_small"):
        create_backbone("convnext_smal")
    with pytest.raises(ValueError, match=r"unknown backbone 'qqq'; families are resnet, .*list_backbones"):
        create_backbone("qqq")
    assert family_of("convnext_base.fb_in22k") == "convnext"


def test_images_for_clips_and_the_reverse(family: str) -> None:
    wrong = torch.zeros(1, 3, 32, 32) if FAMILIES[family].input_dims == 5 else torch.zeros(1, 3, 2, 32, 32)
    with pytest.raises(ValueError, match=rf"{SMALLEST[family]} takes (images|clips) \[B, 3, .*\], not \[1, 3, "):
        shrunken_backbone(family)(wrong)


def test_settings_that_mean_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match=r"no setting 'dropp_path'; near names: drop_path"):
        create_backbone("resnet18", dropp_path=0.3)
    with pytest.raises(ValueError, match=r"no setting 'in_chans'; there are pretrained, image_size_px, drop_path"):
        create_backbone("resnet18", in_chans=1)
    with pytest.raises(ValueError, match=r"'hf_hub_id' is about pretrained weights"):
        create_backbone("resnet18", hf_hub_id="timm/resnet18.a1_in1k")
    with pytest.raises(ValueError, match=r"'url' is about pretrained weights of timm"):
        create_backbone("swin3d_t", pretrained=True, url="x")


@pytest.mark.parametrize("setting", [{"policy": "selective"}, {"segments": 2}, {"budget": 0.9}, {}])
def test_where_checkpointing_does_not_work_it_says_so(setting: dict[str, Any]) -> None:
    backbone, images = shrunken_backbone("resnet").enable_gradient_checkpointing(**setting), small_batch("resnet18")
    with torch.inference_mode():
        made = images.clone()
    with pytest.raises(ValueError, match=r"made in inference_mode.* give inputs\.clone\(\)"):
        backbone(made)
    weights = dict(backbone.named_parameters())
    with pytest.raises(RuntimeError, match=r"transforms of torch\.func.* disable_gradient_checkpointing\(\) first"):
        torch.func.grad(lambda weights: torch.func.functional_call(backbone, weights, images).sum())(weights)
    backbone.disable_gradient_checkpointing()(images)


@pytest.mark.parametrize("family", [name for name, family in FAMILIES.items() if family.input_dims == 4])
def test_a_map_comes_with_the_same_vectors(family: str) -> None:
    backbone, images = shrunken_backbone(family), small_batch(SMALLEST[family])
    torch.manual_seed(2)
    vectors = backbone(images)
    backbone.give_map()
    torch.manual_seed(2)
    features = backbone(images)
    assert torch.equal(features.pooled, vectors)
    assert features.map.shape[:2] == (len(images), backbone.map_channels)
    assert features.map.ndim == 4
    assert features.map.std() > 0
    backbone.give_map(False)
    assert isinstance(backbone(images), Tensor)


@pytest.mark.parametrize("family", [name for name, family in FAMILIES.items() if family.input_dims == 4])
def test_with_a_map_recomputation_changes_no_bit(family: str) -> None:
    backbone, images = shrunken_backbone(family), small_batch(SMALLEST[family])
    backbone.give_map()

    def step() -> list[Tensor]:
        torch.manual_seed(2)
        backbone.zero_grad()
        features = backbone(images)
        (features.pooled.square().mean() + features.map.square().mean()).backward()
        return [parameter.grad for parameter in backbone.parameters() if parameter.grad is not None]

    before = copy.deepcopy(backbone.state_dict())
    expected = step()
    backbone.load_state_dict(before)
    backbone.enable_gradient_checkpointing()
    assert same(step(), expected)


def test_a_backbone_without_a_map() -> None:
    backbone = shrunken_backbone("swin3d")
    with pytest.raises(ValueError, match="swin3d_t has no map"):
        backbone.give_map()
