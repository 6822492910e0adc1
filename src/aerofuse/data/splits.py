"""Training, validation and test splits that keep the photos of one airframe together."""

from __future__ import annotations

import numpy as np
import pandas as pd

SPLITS = ("train", "validation", "test")


def assign_splits(groups: pd.Series, strata: pd.Series, shares: dict[str, float], seed: int) -> pd.Series:
    """A split name per photo: every group whole in one split, every stratum divided by `shares`.

    `groups` (registration) and `strata` (type name) are one value per photo. Within a stratum the groups are
    shuffled, then each goes, largest first, to the split that lacks most of its share.

    Raises `ValueError` naming a stratum that has fewer groups than there are splits.
    """
    rng = np.random.default_rng(seed)
    names = list(shares)
    split_of: dict[object, str] = {}
    for stratum, members in groups.groupby(strata, sort=True):
        sizes = members.value_counts().sort_index()
        if len(sizes) < len(names):
            raise ValueError(
                f"type {stratum!r} has photos of {len(sizes)} airframe(s), too few to fill {', '.join(names)} "
                "without showing an airframe on two sides; add photos or leave the type out"
            )
        shuffled = sizes.iloc[rng.permutation(len(sizes))].sort_values(ascending=False, kind="stable")
        missing = {name: shares[name] * float(sizes.sum()) for name in names}
        for group, size in shuffled.items():
            chosen = max(names, key=lambda name: missing[name])
            split_of[group] = chosen
            missing[chosen] -= size
    return groups.map(split_of).rename("split")
