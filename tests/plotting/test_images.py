from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from aerofuse.plotting.images import Pixels, overlay, write_jpegs


def noise(seed: int, side: int) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


def test_an_overlay_is_grey_where_nothing_is_and_coloured_where_the_map_is_high() -> None:
    image = noise(0, 32)
    heat = np.zeros((32, 32), dtype=np.float32)
    heat[:, 16:] = 1
    shown = overlay(image, heat).astype(int)
    assert (shown[:, :16].max(axis=2) == shown[:, :16].min(axis=2)).all()
    np.testing.assert_allclose(shown[:, :16, 0], image[:, :16].mean(axis=2), atol=0.5)
    assert (np.ptp(shown[:, 16:], axis=2) > 40).all()


def test_pictures_are_small_and_the_same_twice(tmp_path: Path) -> None:
    pictures = {"a.jpg": noise(0, 96), "b.jpg": noise(1, 400)}
    for folder in ("one", "two"):
        write_jpegs(pictures, tmp_path / folder, 100_000)
    sizes = {name: Image.open(tmp_path / "one" / name).size for name in pictures}
    assert sizes == {"a.jpg": (96, 96), "b.jpg": (160, 160)}
    for name in pictures:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_all_pictures_together_stay_below_the_limit(tmp_path: Path) -> None:
    pictures = {f"{seed}.jpg": noise(seed, 160) for seed in range(8)}
    write_jpegs(pictures, tmp_path / "good", 1_000_000)
    good = sum(path.stat().st_size for path in (tmp_path / "good").iterdir())
    write_jpegs(pictures, tmp_path / "less", good * 2 // 3)
    assert sum(path.stat().st_size for path in (tmp_path / "less").iterdir()) <= good * 2 // 3
    with pytest.raises(ValueError, match=r"8 images take \d+ bytes, 100 are allowed; show fewer mistakes"):
        write_jpegs(pictures, tmp_path / "none", 100)
    assert not (tmp_path / "none").exists()
