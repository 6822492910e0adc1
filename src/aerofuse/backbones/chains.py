"""How the chain of units is read from a network, for each of the ten families.

The composition of the units is the network's own forward pass. Transformer blocks are two units, attention and MLP, so
that a plan may treat them differently.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import groupby
from typing import Any

from torch import Tensor, nn

from aerofuse.checkpointing.chain import Unit
from aerofuse.common.torchvision_pairing import ensure_torchvision_imports
from aerofuse.memory.torch_private import MODULE_HOOKS

ensure_torchvision_imports()

from timm.models.efficientnet import EfficientNet  # noqa: E402
from timm.models.maxxvit import MaxxVitBlock  # noqa: E402

# timm's and torchvision's classes, and their blocks, say little of their attributes to a type checker.
Network = Any


# Whose forward passes the chains below write out.
_LIBRARIES = ("timm.", "torch.nn.modules.", "torchvision.")


def keep_calls(model: nn.Module, units: Sequence[Unit]) -> Iterator[Unit]:
    """Yield the units, with those joined to one that lie in a module which has to be called itself.

    That is a module of a class that is not the library's own (a wrapper, an adapter, one that `fully_shard` made), or
    with hooks, another `forward` or a compiled call. Its parts run as they would without us, for all of that to act.
    """
    modules = dict(model.named_modules())
    own = {id(module) for module in modules.values() if _has_own_call(module)}

    def outermost(unit: Unit) -> str | None:
        parts = unit.name.split(".")
        names = (".".join(parts[:length]) for length in range(len(parts)))
        return next((name for name in names if name in modules and id(modules[name]) in own), None)

    for name, joined in groupby(units, outermost):
        if name is None:
            yield from joined
        else:
            yield Unit.of(name or "model", modules[name])


def _has_own_call(module: nn.Module) -> bool:
    if isinstance(module, MaxxVitBlock) and _has_own_call(module.attn_grid):
        return True  # the block permutes what its last part returns
    return (
        not type(module).__module__.startswith(_LIBRARIES)
        or "forward" in vars(module)
        or module._compiled_call_impl is not None
        or any(getattr(module, hooks) for hooks in MODULE_HOOKS)
    )


def resnet_chain(model: Network) -> Iterator[Unit]:
    yield _in_turn_unit("stem", model.conv1, model.bn1, model.act1, model.maxpool)
    for stage in ("layer1", "layer2", "layer3", "layer4"):
        yield from _children(stage, getattr(model, stage))
    yield Unit("head", model.forward_head, (model.global_pool,))


def efficientnet_chain(model: Network) -> Iterator[Unit]:
    """EfficientNet, EfficientNetV2 and MobileNetV2."""
    yield _in_turn_unit("stem", model.conv_stem, model.bn1)
    for name, stage in model.blocks.named_children():
        yield from _children(f"blocks.{name}", stage)
    yield _in_turn_unit("conv_head", model.conv_head, model.bn2)
    yield Unit("head", model.forward_head, (model.global_pool,))


def mobilenet_chain(model: Network) -> Iterator[Unit]:
    if isinstance(model, EfficientNet):
        yield from efficientnet_chain(model)
        return
    yield _in_turn_unit("stem", model.conv_stem, model.bn1)
    for name, stage in model.blocks.named_children():
        yield from _children(f"blocks.{name}", stage)
    yield Unit("head", model.forward_head, (model.global_pool, model.conv_head, model.norm_head, model.act2))


def regnet_chain(model: Network) -> Iterator[Unit]:
    yield Unit.of("stem", model.stem)
    for stage in ("s1", "s2", "s3", "s4"):
        yield from _children(stage, getattr(model, stage))
    yield _in_turn_unit("head", model.final_conv, model.head)


def vit_chain(model: Network) -> Iterator[Unit]:
    stem = (model.patch_embed, model.pos_drop, model.patch_drop, model.norm_pre)
    yield Unit("stem", partial(_vit_stem, model), stem)
    for name, block in model.blocks.named_children():
        yield from _halves(f"blocks.{name}", block, _vit_attention, _vit_mlp)
    yield Unit.of("norm", model.norm)
    yield Unit("head", model.forward_head, (model.fc_norm, model.head_drop))


def swin_chain(model: Network) -> Iterator[Unit]:
    yield Unit.of("patch_embed", model.patch_embed)
    for number, stage in model.layers.named_children():
        yield from _module(f"layers.{number}.downsample", stage.downsample)
        for name, block in stage.blocks.named_children():
            yield from _halves(f"layers.{number}.blocks.{name}", block, _swin_attention, _swin_mlp)
    yield _in_turn_unit("head", model.norm, model.head)


def swin3d_chain(model: Network) -> Iterator[Unit]:
    yield _in_turn_unit("patch_embed", model.patch_embed, model.pos_drop)
    for number, stage in model.features.named_children():
        if isinstance(stage, nn.Sequential):
            for name, block in stage.named_children():
                yield from _halves(f"features.{number}.{name}", block, _swin3d_attention, _swin3d_mlp)
        else:
            yield Unit.of(f"features.{number}", stage)
    yield Unit("head", partial(_swin3d_head, model), (model.norm, model.avgpool))


def maxvit_chain(model: Network) -> Iterator[Unit]:
    yield Unit.of("stem", model.stem)
    for number, stage in model.stages.named_children():
        for child, block in stage.blocks.named_children():
            name = f"stages.{number}.blocks.{child}"
            yield from _maxvit_block(name, block) if isinstance(block, MaxxVitBlock) else (Unit.of(name, block),)
    yield _in_turn_unit("head", model.norm, model.head)


def _maxvit_block(name: str, block: Network) -> Iterator[Unit]:
    """A convolution, then attention within windows and over a grid, on channels-last tensors."""
    yield Unit(f"{name}.conv", partial(_maxvit_conv, block), (block.conv,))
    yield from _halves(f"{name}.attn_block", block.attn_block, _partition_attention, _partition_mlp)
    attention, mlp = _halves(f"{name}.attn_grid", block.attn_grid, _partition_attention, _partition_mlp)
    yield attention
    yield Unit(mlp.name, partial(_maxvit_end, block), mlp.modules)


def convnext_chain(model: Network) -> Iterator[Unit]:
    yield Unit.of("stem", model.stem)
    for number, stage in model.stages.named_children():
        yield from _module(f"stages.{number}.downsample", stage.downsample)
        yield from _children(f"stages.{number}.blocks", stage.blocks)
    yield _in_turn_unit("head", model.norm_pre, model.head)


def _in_turn_unit(name: str, *modules: nn.Module) -> Unit:
    """A unit of several modules that follow each other."""
    return Unit(name, partial(_in_turn, modules), modules)


def _in_turn(modules: tuple[nn.Module, ...], inputs: Tensor) -> Tensor:
    for module in modules:
        inputs = module(inputs)
    return inputs


def _module(name: str, module: nn.Module) -> Iterator[Unit]:
    """The unit that is a module, none for one that does nothing."""
    if not isinstance(module, nn.Identity):
        yield Unit.of(name, module)


def _children(name: str, stage: nn.Module) -> Iterator[Unit]:
    for child, module in stage.named_children():
        yield Unit.of(f"{name}.{child}", module)


def _halves(
    name: str, block: Network, attention: Callable[[Any, Tensor], Tensor], mlp: Callable[[Any, Tensor], Tensor]
) -> Iterator[Unit]:
    """A transformer block as two units: a plan then may treat attention and MLP differently."""
    yield Unit(f"{name}.attention", partial(attention, block), (block,))
    yield Unit(f"{name}.mlp", partial(mlp, block), (block,))


def _vit_stem(model: Network, images: Tensor) -> Tensor:
    tokens: Tensor = model.norm_pre(model.patch_drop(model._pos_embed(model.patch_embed(images))))
    return tokens


def _vit_attention(block: Network, x: Tensor) -> Tensor:
    output: Tensor = x + block.drop_path1(block.ls1(block.attn(block.norm1(x))))
    return output


def _vit_mlp(block: Network, x: Tensor) -> Tensor:
    output: Tensor = x + block.drop_path2(block.ls2(block.mlp(block.norm2(x))))
    return output


def _swin_attention(block: Network, x: Tensor) -> Tensor:
    output: Tensor = x + block.drop_path1(block._attn(block.norm1(x)))
    return output


def _swin_mlp(block: Network, x: Tensor) -> Tensor:
    batch, height, width, channels = x.shape
    x = x.reshape(batch, -1, channels)
    x = x + block.drop_path2(block.mlp(block.norm2(x)))
    return x.reshape(batch, height, width, channels)


def _swin3d_attention(block: Network, x: Tensor) -> Tensor:
    output: Tensor = x + block.stochastic_depth(block.attn(block.norm1(x)))
    return output


def _swin3d_mlp(block: Network, x: Tensor) -> Tensor:
    output: Tensor = x + block.stochastic_depth(block.mlp(block.norm2(x)))
    return output


def _swin3d_head(model: Network, x: Tensor) -> Tensor:
    pooled: Tensor = model.avgpool(model.norm(x).permute(0, 4, 1, 2, 3))
    return pooled.flatten(1)


def _maxvit_conv(block: Network, x: Tensor) -> Tensor:
    convolved: Tensor = block.conv(x)
    return convolved.permute(0, 2, 3, 1)


def _partition_attention(block: Network, x: Tensor) -> Tensor:
    output: Tensor = x + block.drop_path1(block.ls1(block._partition_attn(block.norm1(x))))
    return output


def _partition_mlp(block: Network, x: Tensor) -> Tensor:
    output: Tensor = x + block.drop_path2(block.ls2(block.mlp(block.norm2(x))))
    return output


def _maxvit_end(block: Network, x: Tensor) -> Tensor:
    return _partition_mlp(block.attn_grid, x).permute(0, 3, 1, 2)
