"""Small networks of every shape: rows, branches, dense connections, side inputs, several results, shared modules."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

WIDTH = 8


class Residual(nn.Module):
    """A residual block, with a convolution in its shortcut where it is asked for."""

    def __init__(self, has_projection: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTH)
        self.act1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(WIDTH, WIDTH, 3, padding=1)
        self.drop = nn.Dropout(0.2)
        self.shortcut = nn.Conv2d(WIDTH, WIDTH, 1) if has_projection else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.drop(self.conv2(self.act1(self.bn1(self.conv1(x)))))
        output: Tensor = y + self.shortcut(x)
        return output


class Row(nn.Module):
    """A stem of layers, blocks in a stage, and a head: what most networks are."""

    def __init__(self, num_blocks: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, WIDTH, 3, padding=1)
        self.bn = nn.BatchNorm2d(WIDTH)
        self.act = nn.ReLU(inplace=True)
        self.stage = nn.Sequential(Residual(has_projection=True), *(Residual() for _ in range(num_blocks - 1)))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(WIDTH, 4)

    def forward_features(self, x: Tensor) -> Tensor:
        features: Tensor = self.stage(self.act(self.bn(self.conv(x))))
        return features

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.head(self.pool(self.forward_features(x)).flatten(1))
        return output


class Permuted(Row):
    """Blocks on channels-last tensors: another view is handed over."""

    def forward_features(self, x: Tensor) -> Tensor:
        x = self.act(self.bn(self.conv(x)))
        for block in self.stage:
            x = block(x.permute(0, 2, 3, 1).permute(0, 3, 1, 2))
        return x


class UNet(nn.Module):
    """Two levels with a connection between them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, WIDTH, 1)
        self.down = nn.Sequential(*(Residual() for _ in range(2)))
        self.inner = nn.Sequential(*(Residual() for _ in range(2)))
        self.join = nn.Conv2d(2 * WIDTH, WIDTH, 1)
        self.up = nn.Sequential(*(Residual() for _ in range(2)))

    def forward(self, x: Tensor) -> Tensor:
        high = self.down(self.stem(x))
        low = self.inner(functional.avg_pool2d(high, 2))
        joined = torch.cat([high, functional.interpolate(low, scale_factor=2.0)], dim=1)
        output: Tensor = self.up(self.join(joined))
        return output


class DenseLayer(nn.Module):
    def __init__(self, num_inputs: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(num_inputs)
        self.conv = nn.Conv2d(num_inputs, 4, 3, padding=1)

    def forward(self, inputs: list[Tensor]) -> Tensor:
        output: Tensor = self.conv(functional.relu(self.norm(torch.cat(inputs, dim=1))))
        return output


class Dense(nn.Module):
    """Layers that read the results of all before them, in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 1)
        self.layers = nn.ModuleList(DenseLayer(4 * number) for number in range(1, 8))

    def forward(self, x: Tensor) -> Tensor:
        features = [self.stem(x)]
        for layer in self.layers:
            features.append(layer(features))
        return torch.cat(features, dim=1)


class Biased(nn.Module):
    """A block of attention that takes a shared position table, and the height and width of its tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.proj = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor, table: Tensor, *, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        assert x.shape[1] == size[0] * size[1]
        q, k, v = self.qkv(self.norm(x)).chunk(3, dim=-1)
        attention = (q @ k.transpose(1, 2) + table).softmax(dim=-1)
        return x + self.proj(attention @ v), attention


class PositionTable(nn.Module):
    """A table that is made from a number of tokens alone."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(16, 16) / 4)

    def forward(self, num_tokens: int) -> Tensor:
        return self.weight[:num_tokens, :num_tokens].tanh()


class SideInputs(nn.Module):
    """Blocks with side inputs that need gradients, and several results. One is expanded, from what takes no tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, WIDTH, 4, stride=4)
        self.table = PositionTable()
        self.blocks = nn.ModuleList(Biased() for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).flatten(2).transpose(1, 2)
        table, total = self.table(x.shape[1]).expand(len(x), -1, -1), torch.zeros(())
        for block in self.blocks:
            x, attention = block(x, table, size=(4, 4))
            total = total + attention.square().mean()
        return x * total


class Shared(nn.Module):
    """One block called thrice, with something written in place between the second and the third."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, WIDTH, 1)
        self.block, self.other = Residual(), Residual()

    def forward(self, x: Tensor) -> Tensor:
        x = self.other(self.block(self.block(self.stem(x))))
        x.mul_(1.5)
        output: Tensor = self.block(x)
        return output


class Branches(nn.Module):
    """Rows of blocks that exchange what they have found, by turns."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, WIDTH, 1)
        self.left = nn.ModuleList(nn.Sequential(Residual(), Residual()) for _ in range(2))
        self.right = nn.ModuleList(nn.Sequential(Residual(), Residual()) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        left = right = self.stem(x)
        for one, other in zip(self.left, self.right, strict=True):
            left, right = one(left), other(right)
            left, right = left + right.mean(), right - left.mean()
        return torch.cat([left, right])


class Plain(nn.Sequential):
    """A row of layers without a block, as VGG is."""

    def __init__(self) -> None:
        layers: list[nn.Module] = []
        for number in range(6):
            layers += [nn.Conv2d(WIDTH if number else 3, WIDTH, 3, padding=1), nn.ReLU(inplace=True)]
        super().__init__(*layers)


class Overwritten(nn.Module):
    """Layers that change what they are given: one after a block, one after something that is no module."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, WIDTH, 1)
        self.block, self.act, self.other = Residual(), nn.ReLU(inplace=True), Residual()
        self.drop, self.head = nn.Dropout(0.2, inplace=True), nn.Linear(WIDTH, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.other(self.act(self.block(self.stem(x))))
        output: Tensor = self.head(self.drop(x.mean((2, 3))))
        return output


class PositionEncoding(nn.Module):
    """A residual convolution, as DaViT (arXiv 2204.03645) has it before each half of a block."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(WIDTH, WIDTH, 3, padding=1, groups=WIDTH)
        self.act = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = x + self.act(self.conv(x))
        return output


class EncodedBlock(nn.Module):
    """Two residual halves, each behind an encoding that nothing leads past."""

    def __init__(self) -> None:
        super().__init__()
        self.encode1, self.encode2 = PositionEncoding(), PositionEncoding()
        self.conv1, self.act1 = nn.Conv2d(WIDTH, WIDTH, 3, padding=1), nn.GELU()
        self.conv2, self.act2 = nn.Conv2d(WIDTH, WIDTH, 3, padding=1), nn.GELU()
        self.conv3 = nn.Conv2d(WIDTH, WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.encode1(x)
        x = x + self.act1(self.conv1(x))
        x = self.encode2(x)
        output: Tensor = x + self.conv3(self.act2(self.conv2(x)))
        return output


class Encoded(nn.Sequential):
    """Blocks that hold small blocks."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, WIDTH, 3, padding=1), EncodedBlock(), EncodedBlock(), EncodedBlock())


NETWORKS: Mapping[str, Callable[[], nn.Module]] = {
    network.__name__: network
    for network in (Row, Permuted, UNet, Dense, SideInputs, Shared, Branches, Plain, Overwritten, Encoded)
}


def network_and_images(name: str) -> tuple[nn.Module, Tensor]:
    """A network in training mode with its weights of seed 0, and images for it."""
    torch.manual_seed(0)
    return NETWORKS[name]().train(), torch.randn(2, 3, 16, 16)
