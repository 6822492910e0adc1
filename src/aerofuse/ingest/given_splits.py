"""A split that came with the data: what it must have, what leaks across it, and the validation photos that it lacks."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from aerofuse.ingest.params import SPLITS, TEST, TRAIN, VALIDATION, Leaks, SplitParams
from aerofuse.ingest.splits import assign_splits, small_strata, strata_of_groups

GIVEN = "given_split"  # the column of the index that holds the split as it came
_LEAKING = {"near_duplicates": "picture", "registration": "airframe"}  # what may be on one side only, by column
_SHOWN = 10


def check_given_split(table: pd.DataFrame, places: pd.Series) -> None:
    """Check that there are photos to train on and to test on, and that each type has training photos.

    `table` has the columns `split` and `typename`; `places` says of each row where it stands. Raises `ValueError`.
    """
    counts = table["split"].value_counts()
    for name in (TRAIN, TEST):
        if name not in counts:
            found = ", ".join(f"{count} of {split}" for split, count in counts.items())
            raise ValueError(
                f"the split that came with the data has no photo of {name}, and {found}; add some, or take the split "
                "out of the data to have one made"
            )
    learned = set(table.loc[table["split"] == TRAIN, "typename"])
    unknown = table[~table["typename"].isin(learned)]
    photos = unknown.groupby("typename", sort=False)
    if len(photos):
        found = "; ".join(
            f"{name} ({len(those)} in {', '.join(sorted(set(those['split'])))}, such as {places[those.index[0]]})"
            for name, those in list(photos)[:_SHOWN]
        )
        more = f"; and {len(photos) - _SHOWN} more" if len(photos) > _SHOWN else ""
        raise ValueError(
            f"{TRAIN} has no photo of {found}{more}, so that no model can learn {len(photos)} types; give them "
            "training photos, take them out of the other splits, or name the others in data.only_types"
        )


def keep_given_split(index: pd.DataFrame, split: SplitParams, leaks: Leaks) -> pd.Series:
    """Return the split of each photo: the one in the column `given_split`, after `leaks` was followed.

    `move` puts a group of several splits into the first of train, validation and test that it is in, so that no
    photo of test, or of validation, is known from another split. Where no photo is given for validation, it is cut
    from train. Raises `ValueError` where `leaks` is `refuse` and there are some, or where a split would be empty.
    """
    if leaks == "refuse":
        _refuse_leaks(index)
    given: pd.Series = index[GIVEN]
    kept = _moved_to_one_side(given, index["group"]) if leaks == "move" else given
    if VALIDATION not in set(given):
        kept = _with_validation(kept, index, split)
    for name in SPLITS:
        if name not in set(kept):
            raise ValueError(
                f"data.leaks is move, and all {int((given == name).sum())} photos of {name} show a picture or an "
                f"airframe of another split, so that {name} would be empty; give it other photos"
            )
    return kept.rename("split")


def divided_groups(index: pd.DataFrame, column: str, by: str = GIVEN) -> list[pd.DataFrame]:
    """Return the photos of each group that has several values of `by`, the largest group first.

    `column` says what makes a group: `near_duplicates` or `registration`. A split that was made here divides none.
    """
    if by not in index or column not in index:
        return []
    divided = index[index.groupby(column)[by].transform("nunique") > 1]
    groups = [photos for _, photos in divided.groupby(column, sort=True)]
    return sorted(groups, key=len, reverse=True)


def _moved_to_one_side(given: pd.Series, groups: pd.Series) -> pd.Series:
    places = given.map({name: place for place, name in enumerate(SPLITS)})
    return places.groupby(groups).transform("min").map(dict(enumerate(SPLITS)))


def _with_validation(kept: pd.Series, index: pd.DataFrame, split: SplitParams) -> pd.Series:
    """Cut validation from train, in the proportion of `data.split`, of each type that has two groups or more.

    A group that is in test too stays in train, where it was given.
    """
    tested = set(index.loc[kept == TEST, "group"])
    free = index[(kept == TRAIN) & ~index["group"].isin(tested)]
    strata = free["group"].map(strata_of_groups(free["group"], free["typename"]))
    strata = strata[~strata.isin(list(small_strata(free["group"], strata, least=2)))]
    cut = kept.copy()
    if not strata.empty:
        whole = split.train + split.validation
        shares = {TRAIN: split.train / whole, VALIDATION: split.validation / whole}
        cut[strata.index] = assign_splits(free["group"][strata.index], strata, shares, split.seed)
    # A type may be in train only beside another one, in a group that counts for that.
    unlearned = ~index["typename"].isin(set(index.loc[cut == TRAIN, "typename"]))
    cut = cut.mask((cut == VALIDATION) & index["group"].isin(set(index.loc[unlearned, "group"])), TRAIN)
    if VALIDATION not in set(cut):
        raise ValueError(
            f"the split that came with the data has no photo of {VALIDATION}, and {TRAIN} can spare none: no type has "
            "two separate airframes or pictures there; add photos"
        )
    return cut


def _refuse_leaks(index: pd.DataFrame) -> None:
    found = {what: divided_groups(index, column) for column, what in _LEAKING.items()}
    lines = list(_described(found))
    if lines:
        counted = " and ".join(f"{len(groups)} {what}s" for what, groups in found.items() if groups)
        shown = "".join(f"\n  {line}" for line in lines[:_SHOWN])
        more = f"\n  and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
        raise ValueError(
            f"data.leaks is refuse, and {counted} are on several sides of the split that came with the data:{shown}"
            f"{more}\ntake their photos out of all sides but one, or set data.leaks to move, or to report"
        )


def _described(found: dict[str, list[pd.DataFrame]]) -> Iterator[str]:
    for what, groups in found.items():
        for photos in groups:
            first = photos.drop_duplicates(GIVEN)  # one of each side
            named = ", ".join(f"{name} ({side})" for name, side in zip(first["filename"], first[GIVEN], strict=True))
            yield f"one {what}: {named}"
