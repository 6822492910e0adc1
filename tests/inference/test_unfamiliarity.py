from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from aerofuse.inference.unfamiliarity import (
    STATISTICS_FILE,
    UNFAMILIAR_ABOVE,
    Unfamiliarity,
    fit_unfamiliarity,
    load_unfamiliarity,
    save_unfamiliarity,
)
from aerofuse.models.aircraft_model import AircraftModel
from tests.inference.small_packages import ARCHITECTURES, CLASSES

FEATURES, TYPES = 24, 3


def draw(photos: int, seed: int) -> tuple[Tensor, Tensor]:
    """Features of photos around a centre for each type, stretched, and their types."""
    generator = torch.Generator().manual_seed(seed)
    centres = 3 * torch.eye(TYPES, FEATURES) + 1
    types = torch.arange(photos) % TYPES
    noise = torch.randn(photos, FEATURES, generator=generator) * torch.linspace(0.02, 0.5, FEATURES)
    return centres[types] + noise, types


@pytest.fixture(scope="module")
def fitted() -> Unfamiliarity:
    return fit_unfamiliarity(*draw(900, 0), draw(400, 1)[0])


@pytest.fixture(scope="module")
def model() -> AircraftModel:
    return ARCHITECTURES["single_task"].build(CLASSES)


def test_the_distance_is_mahalanobis_to_the_nearest_type(fitted: Unfamiliarity) -> None:
    """Against the formula, but for a factor that all distances have."""
    training, types = draw(900, 0)
    unit = (training / training.norm(dim=1, keepdim=True)).double()
    means = torch.stack([unit[types == kind].mean(dim=0) for kind in range(TYPES)])
    covariance = (unit - means[types]).T.cov(correction=0)
    shrunk = covariance + 1e-3 * covariance.trace() / FEATURES * torch.eye(FEATURES)
    other = draw(50, 2)[0]
    off = (other / other.norm(dim=1, keepdim=True)).double().unsqueeze(1) - means
    expected = torch.einsum("btd,de,bte->bt", off, shrunk.inverse(), off).amin(dim=1).log()
    differences = fitted.log_distances(other) - expected
    assert differences.std() < 0.01


def test_five_in_a_hundred_validation_photos_are_unfamiliar(fitted: Unfamiliarity) -> None:
    scores = fitted(draw(400, 1)[0])
    assert scores.dtype == torch.float32
    assert ((scores >= 0) & (scores <= 1)).all()
    assert (scores > UNFAMILIAR_ABOVE).float().mean() == pytest.approx(0.05, abs=0.003)
    assert scores.median() == pytest.approx(0.05, abs=0.005)


def test_what_lies_elsewhere_is_unfamiliar(fitted: Unfamiliarity) -> None:
    """Also a small step in a direction in which the training photos hardly differ."""
    known, _ = draw(60, 3)
    assert (fitted(known.flip(1)) > 0.99).all()
    known[:, 3] += 0.6
    assert (fitted(known) > UNFAMILIAR_ABOVE).float().mean() > 0.9


def test_the_length_of_the_features_does_not_matter(fitted: Unfamiliarity) -> None:
    known, _ = draw(60, 3)
    assert torch.allclose(fitted(known), fitted(7 * known), atol=1e-4)


def test_photos_without_a_type_add_nothing(fitted: Unfamiliarity) -> None:
    training, types = draw(900, 0)
    more = torch.cat([training, torch.randn(50, FEATURES)])
    again = fit_unfamiliarity(more, torch.cat([types, torch.full((50,), -1)]), draw(400, 1)[0])
    for name, tensor in again.state_dict().items():
        assert torch.equal(tensor, fitted.state_dict()[name])


def test_where_no_photo_has_a_type_all_are_of_one() -> None:
    training, _ = draw(900, 0)
    found = fit_unfamiliarity(training, torch.full((900,), -1), draw(400, 1)[0])
    assert len(found.means) == 1
    assert (found(training) > UNFAMILIAR_ABOVE).float().mean() == pytest.approx(0.05, abs=0.02)


def test_a_type_without_training_photos_is_no_place() -> None:
    training, types = draw(900, 0)
    assert len(fit_unfamiliarity(training, types * 2, draw(400, 1)[0]).means) == TYPES


@pytest.mark.parametrize("photos", [1, 2, 10])
def test_fewer_photos_than_features(photos: int) -> None:
    found = fit_unfamiliarity(*draw(photos, 0), draw(1, 1)[0])
    assert torch.isfinite(found(draw(20, 2)[0])).all()


def test_equal_photos() -> None:
    one = torch.ones(6, FEATURES)
    found = fit_unfamiliarity(one, torch.zeros(6, dtype=torch.int64), one)
    assert torch.isfinite(found(draw(20, 2)[0])).all()


def test_without_photos_there_is_nothing_to_fit() -> None:
    training, types = draw(9, 0)
    with pytest.raises(ValueError, match="0 training photos and 9 validation photos"):
        fit_unfamiliarity(training[:0], types[:0], training)
    with pytest.raises(ValueError, match="9 training photos and 0 validation photos"):
        fit_unfamiliarity(training, types, training[:0])


def test_what_is_read_says_what_was_written(tmp_path: Path, model: AircraftModel) -> None:
    generator = torch.Generator().manual_seed(0)
    training = torch.randn(300, model.num_features, generator=generator)
    fitted = fit_unfamiliarity(training, torch.arange(300) % TYPES, training[:100])
    for folder in ("one", "two"):
        save_unfamiliarity(tmp_path / folder, fitted)
    assert (tmp_path / "one" / STATISTICS_FILE).read_bytes() == (tmp_path / "two" / STATISTICS_FILE).read_bytes()
    assert load_file(tmp_path / "one" / STATISTICS_FILE)["whitening"].dtype == torch.float16
    read = load_unfamiliarity(tmp_path / "one", model.num_features)
    assert read is not None
    assert torch.equal(read(training), fitted(training))


def test_a_folder_without_statistics(tmp_path: Path, model: AircraftModel) -> None:
    assert load_unfamiliarity(tmp_path, model.num_features) is None


def test_statistics_that_are_damaged_or_of_another_model(
    tmp_path: Path, fitted: Unfamiliarity, model: AircraftModel
) -> None:
    save_unfamiliarity(tmp_path, fitted)
    with pytest.raises(ValueError, match=r"(?s)unfamiliarity\.safetensors does not fit.*whitening \[24, 24\] instead"):
        load_unfamiliarity(tmp_path, model.num_features)
    save_file({"other": torch.zeros(2)}, tmp_path / STATISTICS_FILE)
    with pytest.raises(ValueError, match="missing: centre"):
        load_unfamiliarity(tmp_path, model.num_features)
    (tmp_path / STATISTICS_FILE).write_bytes(b"nothing")
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        load_unfamiliarity(tmp_path, model.num_features)
