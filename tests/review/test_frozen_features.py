from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from aerofuse.backbones.package_weights import PACKAGES
from aerofuse.review.frozen_features import FrozenNetwork, find_features, model_network, packaged_network
from tests.inference.small_packages import write_model, write_small_package

CPU = torch.device("cpu")
MEANS = FrozenNetwork("means", 32, lambda images: images.float().mean(dim=2), CPU)  # of columns, [B, 3 * 32]


def _photo(path: Path, colour: str, side_px: int = 40) -> Path:
    image = Image.new("RGB", (side_px, side_px), colour)
    image.paste("white", (0, 0, side_px // 2, side_px))
    image.save(path)
    return path


def _flat(images: torch.Tensor) -> torch.Tensor:
    return images.float().mean(dim=2).flatten(1)


def test_a_photo_and_its_mirror_image_have_the_same_features(tmp_path: Path) -> None:
    photo = _photo(tmp_path / "a.png", "red")
    Image.open(photo).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "b.png")
    found = find_features([photo, tmp_path / "b.png"], FrozenNetwork("means", 32, _flat, CPU))
    assert found.features.shape == (2, 96)
    np.testing.assert_allclose(found.features[0], found.features[1], atol=1e-3)


def test_the_batch_size_changes_nothing_and_bad_files_have_a_reason(tmp_path: Path) -> None:
    files = [_photo(tmp_path / f"{colour}.png", colour) for colour in ("red", "green", "blue")]
    files.insert(1, tmp_path / "none.png")
    network = FrozenNetwork("means", 32, _flat, CPU)
    one, all_at_once = (find_features(files, network, batch_size=size) for size in (1, 16))
    np.testing.assert_array_equal(one.features, all_at_once.features)
    assert one.read == [0, 2, 3]
    assert one.problems == {1: "no such file"}
    assert len(one.fingerprints) == 3


def test_no_readable_photo_and_a_damaged_network_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none of 1 photos can be read, such as .*none.png: no such file"):
        find_features([tmp_path / "none.png"], MEANS)
    broken = FrozenNetwork("broken", 32, lambda images: torch.full((len(images), 2), torch.nan), CPU)
    with pytest.raises(ValueError, match="broken finds NaN"):
        find_features([_photo(tmp_path / "a.png", "red")], broken)


def test_a_trained_model_gives_its_own_features(tmp_path: Path) -> None:
    write_small_package(tmp_path / "model", "concat")
    found = find_features([_photo(tmp_path / "a.png", "red")], model_network(tmp_path / "model", CPU))
    assert found.features.ndim == 2
    shutil.rmtree(tmp_path / "model")
    with pytest.raises(FileNotFoundError, match="no model in"):
        model_network(tmp_path / "model", CPU)


def test_a_trained_model_sees_photos_as_it_learned_them(tmp_path: Path) -> None:
    network = replace(model_network(write_model(tmp_path, "single_task", fit="crop"), CPU), side_px=32, find=_flat)
    wide = Image.new("RGB", (90, 30), "red")
    wide.paste("blue", (30, 0, 60, 30))
    wide.save(tmp_path / "wide.png")
    (found,) = find_features([tmp_path / "wide.png"], network).features
    np.testing.assert_array_equal(found.reshape(3, 32), np.repeat([[0.0], [0.0], [255.0]], 32, axis=1))


def test_packaged_weights_give_features(tmp_path: Path) -> None:
    network = packaged_network("tf_efficientnet_lite0", 64, CPU)
    found = find_features([_photo(tmp_path / "a.png", "red")], network)
    assert found.features.shape == (1, 1280)
    with pytest.raises(ValueError, match=f"there are {', '.join(PACKAGES)}, or use --model"):
        packaged_network("convnext_thin", 64, CPU)
