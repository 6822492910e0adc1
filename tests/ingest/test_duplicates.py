from __future__ import annotations

from collections.abc import Callable
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from aerofuse.ingest.duplicates import joined_groups, near_duplicates
from aerofuse.ingest.fingerprint import NUM_BITS, fingerprint
from tests.ingest.photo_folder import PhotoFolder, draw_folder

_MOST_BITS = 32  # as in params.yaml


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> PhotoFolder:
    return draw_folder(tmp_path_factory.mktemp("photos"), photos=40)


def _recompressed(image: Image.Image) -> Image.Image:
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=25)
    return Image.open(buffer)


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "itself": lambda image: image,
    "smaller": lambda image: image.resize((image.width // 2, image.height // 2)),
    "larger": lambda image: image.resize((3 * image.width, 3 * image.height)),
    "recompressed": _recompressed,
    "mirrored": ImageOps.mirror,
    "mirrored, smaller and recompressed": lambda image: _recompressed(
        ImageOps.mirror(image).resize((image.width // 2, image.height // 2))
    ),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.1),
    "grey": lambda image: image.convert("L"),
}


@pytest.mark.parametrize("kind", COPIES)
def test_copies_are_found_and_nothing_else(kind: str, folder: PhotoFolder) -> None:
    images = [folder.image(row) for row in range(len(folder.table))]
    prints = [fingerprint(image) for image in images]
    prints += [fingerprint(COPIES[kind](image)) for image in images]
    groups = near_duplicates(prints, _MOST_BITS)
    count = len(images)
    np.testing.assert_array_equal(groups[:count], groups[count:])
    assert len(set(groups)) == count


def test_photos_are_joined_up_to_the_radius_in_any_order() -> None:
    rng = np.random.default_rng(0)
    prints = [rng.bytes(NUM_BITS // 4) for _ in range(10)]
    prints[9] = _with_bits_turned(prints[1], 4)
    for ordered in (prints, prints[::-1]):
        assert len(set(near_duplicates(ordered, 3))) == 10
        assert len(set(near_duplicates(ordered, 4))) == 9
    assert near_duplicates(prints, 4)[9] == 1


def _with_bits_turned(packed: bytes, count: int) -> bytes:
    bits = np.unpackbits(np.frombuffer(packed, np.uint8))
    bits[:count] ^= 1
    return np.packbits(bits).tobytes()


def test_exact_copies_count_once() -> None:
    """A placeholder that is there thousands of times."""
    rng = np.random.default_rng(0)
    first, second = rng.bytes(NUM_BITS // 4), rng.bytes(NUM_BITS // 4)
    assert near_duplicates([first, second, first, first, second], 0).tolist() == [0, 1, 0, 0, 1]


@pytest.mark.parametrize("most_pairs", [1, 10**6])
def test_a_chain_is_one_group_however_often_it_is_summed_up(monkeypatch: pytest.MonkeyPatch, most_pairs: int) -> None:
    monkeypatch.setattr("aerofuse.ingest.duplicates._MOST_PAIRS", most_pairs)
    rng = np.random.default_rng(0)
    start = rng.bytes(NUM_BITS // 4)
    chain = [_with_bits_turned(start, 10 * step) for step in range(20)]
    alone = [rng.bytes(NUM_BITS // 4) for _ in range(20)]
    order = rng.permutation(40)
    groups = near_duplicates([(chain + alone)[place] for place in order], 10)
    of_chain = groups[np.isin(order, range(20))]
    assert len(set(of_chain)) == 1
    assert len(set(groups)) == 21


def test_groups_are_joined_over_several_labels() -> None:
    groups = joined_groups(["a", "a", "b", None, None, "c"], [1, 2, 2, 3, 4, 5])
    assert groups.tolist() == [0, 0, 0, 1, 2, 3]


def test_missing_labels_join_nothing() -> None:
    assert len(set(joined_groups([None, None, float("nan")], [0, 1, 2]))) == 3
