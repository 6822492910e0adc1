"""How unlike the training photos a photo is, from the features that the heads read.

The Mahalanobis distance to the nearest type (arXiv 1807.03888), of features scaled to length 1 (arXiv 2505.18032).
`docs/predict.md` compares it with other methods.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from aerofuse.common.files import load_into, load_weights, save_weights
from aerofuse.data.labels import MISSING_CLASS

STATISTICS_FILE = "unfamiliarity.safetensors"
SCORE = "unfamiliar_score"
UNFAMILIAR_ABOVE = 0.5  # the score at the validation photos' 95th percentile
NOTICE = "Unlike the photos that the model was trained on: its answers may mean nothing."
PHOTOS_PER_FEATURE = 10  # more training photos make the statistics hardly better

_LIMIT = 0.95  # the share of the validation photos that are familiar
_MEDIAN_SCORE = 0.05  # the score of a validation photo in the middle
_SHRINKAGE = 1e-3  # of the mean variance, added to each
_LEAST_SPREAD = 1e-3
_TINY = 1e-20


class Unfamiliarity(nn.Module):
    """Map features `[B, D]` to scores `[B]` in 0..1, with 0 for what is typical of the training photos."""

    centre: Tensor
    whitening: Tensor
    means: Tensor
    log_limit: Tensor
    spread: Tensor

    def __init__(self, num_features: int, num_classes: int) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(num_features))
        self.register_buffer("whitening", torch.eye(num_features))
        self.register_buffer("means", torch.zeros(num_classes, num_features))
        self.register_buffer("log_limit", torch.zeros(()))
        self.register_buffer("spread", torch.ones(()))

    def forward(self, features: Tensor) -> Tensor:
        """Return the score: 0.5 at the limit, 0.05 at the median of the validation photos."""
        return ((self.log_distances(features) - self.log_limit) / self.spread).sigmoid()

    def log_distances(self, features: Tensor) -> Tensor:
        """Return the logarithms `[B]` of the squared distances to the nearest type."""
        # Centred first: the difference of large numbers would lose digits.
        whitened = (functional.normalize(features.float(), dim=-1) - self.centre) @ self.whitening
        squares = (whitened.unsqueeze(1) - self.means).square().sum(dim=-1)
        return squares.amin(dim=1).clamp_min(_TINY).log()


def fit_unfamiliarity(training: Tensor, types: Tensor, validation: Tensor) -> Unfamiliarity:
    """Fit on the features of training photos `[N, D]` with their types `[N]`; set the limit by validation photos.

    Photos without a type add nothing; where no photo has one, all are of one type. Raises `ValueError` where there is
    no training photo, or no validation photo.
    """
    if len(training) == 0 or len(validation) == 0:
        raise ValueError(
            f"{len(training)} training photos and {len(validation)} validation photos: what is unfamiliar takes some "
            "of both"
        )
    known = types != MISSING_CLASS
    if not known.any():
        known = ~known
    unit = functional.normalize(training[known].double(), dim=-1)
    present, kinds = types[known].unique(return_inverse=True)
    centre = unit.mean(dim=0)
    unit = unit - centre
    counts = kinds.bincount().unsqueeze(1)
    means = torch.zeros(len(present), unit.shape[1], dtype=unit.dtype).index_add_(0, kinds, unit) / counts
    scatter = unit - means[kinds]
    covariance = scatter.T @ scatter / len(scatter)
    # Its scale is left out: the limit has the same one, and half precision has room for few scales.
    covariance /= covariance.diagonal().mean().clamp_min(_TINY)
    identity = torch.eye(len(covariance), dtype=covariance.dtype)
    lower = torch.linalg.cholesky(covariance + _SHRINKAGE * identity)
    # In half precision, as it is kept, so that the limit fits.
    whitening = torch.linalg.solve_triangular(lower, identity, upper=False).T.half().double()

    fitted = Unfamiliarity(unit.shape[1], len(present))
    fitted.centre.copy_(centre)
    fitted.whitening.copy_(whitening)
    fitted.means.copy_(means @ whitening)
    levels = torch.tensor([0.5, _LIMIT], dtype=torch.float64)
    median, limit = fitted.log_distances(validation).double().quantile(levels).tolist()
    odds = math.log((1 - _MEDIAN_SCORE) / _MEDIAN_SCORE)
    fitted.log_limit.fill_(limit)
    fitted.spread.fill_(max((limit - median) / odds, _LEAST_SPREAD))
    return fitted.eval()


def save_unfamiliarity(folder: Path, fitted: Unfamiliarity) -> None:
    """Write the statistics to a model's folder, the whitening in half precision."""
    state = fitted.state_dict()
    save_weights(folder / STATISTICS_FILE, state | {"whitening": state["whitening"].half()})


def load_unfamiliarity(folder: Path, num_features: int) -> Unfamiliarity | None:
    """Read the statistics of the model in a folder, whose heads read so many features.

    They are `None` for the folder of a training stage, and for a package of an older version. Raises `ValueError`
    where the file is damaged, or is of a model with other features.
    """
    path = folder / STATISTICS_FILE
    if not path.is_file():
        return None
    state = load_weights(path)
    fitted = Unfamiliarity(num_features, len(state.get("means", ())))
    load_into(fitted, state, str(path))
    return fitted.eval()
