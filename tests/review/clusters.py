"""Features of three types that are easy to tell apart."""

from __future__ import annotations

import numpy as np

from aerofuse.review.frozen_features import FloatArray


def clusters(photos: int, seed: int = 0) -> tuple[FloatArray, list[str]]:
    """So many photos of each of the types A, B and C, one type after the other."""
    rng = np.random.default_rng(seed)
    centres = 3 * rng.standard_normal((3, 16))
    features = np.concatenate([centre + rng.standard_normal((photos, 16)) for centre in centres])
    return features.astype(np.float32), [name for name in "ABC" for _ in range(photos)]
