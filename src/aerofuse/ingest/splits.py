"""Splitting photos for training, validation and test. Photos of one airframe or of one image stay together."""

from __future__ import annotations

import numpy as np
import pandas as pd

from aerofuse.ingest.params import SPLITS
from aerofuse.ingest.spelling import fold

OTHER = "other"  # the class that types with too few groups are merged into


def assign_splits(groups: pd.Series, strata: pd.Series, shares: dict[str, float], seed: int) -> pd.Series:
    """Return a split name per photo. A group is whole in one split, a stratum is divided by `shares`.

    `groups` (airframes and near-duplicates) and `strata` (type names) have one value per photo. A group with several
    strata counts for the one with most of its photos. Within a stratum the groups are shuffled. Then each, the
    largest first, goes to the split that lacks most of its share; every split gets at least one.

    Raises `ValueError` naming the strata that have fewer groups than there are splits.
    """
    names = list(shares)
    if small := small_strata(groups, strata, len(shares)):
        raise ValueError(
            f"types with too few separate airframes to fill {', '.join(names)} without showing one on two sides: "
            f"{_listed(small)}; add photos, leave them out, or set data.small_types to merge, which makes one class "
            f"{OTHER!r} of them"
        )
    rng = np.random.default_rng(seed)
    split_of: dict[object, str] = {}
    stratum_of = strata_of_groups(groups, strata)
    for _, members in groups.groupby(groups.map(stratum_of), sort=True):
        sizes = members.value_counts().sort_index()
        shuffled = sizes.iloc[rng.permutation(len(sizes))].sort_values(ascending=False, kind="stable")
        missing = {name: shares[name] * float(sizes.sum()) for name in names}
        empty = list(names)
        for place, (group, size) in enumerate(shuffled.items()):
            # The last groups go to splits that have none, so that every split has every type.
            choice = empty if len(sizes) - place == len(empty) else names
            chosen = max(choice, key=lambda name: missing[name])
            split_of[group] = chosen
            missing[chosen] -= size
            empty = [name for name in empty if name != chosen]
    return groups.map(split_of).rename("split")


def small_strata(groups: pd.Series, strata: pd.Series, least: int = len(SPLITS)) -> dict[str, int]:
    """Return the strata with fewer than `least` groups of their own, and how many they have."""
    stratum_of = strata_of_groups(groups, strata)
    counts = stratum_of.value_counts().reindex(sorted(strata.unique()), fill_value=0)
    return {str(name): int(count) for name, count in counts.items() if count < least}


def merge_small(groups: pd.Series, strata: pd.Series) -> pd.Series:
    """Return `strata` with those too small to be split renamed to `OTHER`.

    Raises `ValueError` where a stratum has that name already, or where one is too small even so.
    """
    small = small_strata(groups, strata)
    if not small:
        return strata
    merging = f"data.small_types is merge, which makes one class {OTHER!r} of {_listed(small)}"
    if taken := [name for name in strata.unique() if fold(name) == fold(OTHER)]:
        raise ValueError(f"{merging}, and there is a type {taken[0]!r}; rename that type in your table")
    merged = strata.where(~strata.isin(list(small)), OTHER)
    if still_small := small_strata(groups, merged):
        raise ValueError(
            f"{merging}; too few separate airframes to fill {len(SPLITS)} splits has even so {_listed(still_small)}; "
            "add photos, or leave these types out"
        )
    return merged


def _listed(small: dict[str, int]) -> str:
    return ", ".join(f"{name!r} ({count})" for name, count in small.items())


def strata_of_groups(groups: pd.Series, strata: pd.Series) -> pd.Series:
    """Return the stratum that each group counts for, by group: the one with most of its photos."""
    counts = pd.DataFrame({"group": groups, "stratum": strata}).value_counts(["group", "stratum"], sort=False)
    return (  # of equal counts, the first name
        counts.reset_index()
        .sort_values(["count", "stratum"], ascending=[False, True])
        .drop_duplicates("group")
        .set_index("group")["stratum"]
    )
