"""The photos to review: those that a label table, or FGVC-Aircraft, names with a type, and those without one."""

from __future__ import annotations

import csv
import io
import tempfile
import unicodedata
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from aerofuse.ingest.fgvc_source import list_fgvc
from aerofuse.ingest.label_table import BOX_COLUMNS
from aerofuse.ingest.listing import Listing
from aerofuse.ingest.table_source import list_table

DEFAULT_TABLES = ("aircraft_labels.csv", "labels.csv")
CHECKED = "checked"  # the user's mark in a row whose label was found right
_FIRST_ROW = 2  # as a spreadsheet counts


@dataclass(frozen=True)
class Collection:
    """Photos with a type and photos without one.

    Both frames have `path` and the `columns` of the label table, as the user wrote them. `missing` are rows without a
    type whose file is not there either.
    """

    labelled: pd.DataFrame
    unlabelled: pd.DataFrame
    columns: tuple[str, ...]
    missing: tuple[str, ...] = ()


def find_table(root: Path) -> Path:
    """Return the label table in a folder of photos. Raises `FileNotFoundError` where there is none."""
    if not root.is_dir():
        kind = "a file" if root.exists() else "no such folder"
        raise FileNotFoundError(
            f"{root}: {kind}; name the folder with your photos, or add --source fgvc for FGVC-Aircraft"
        )
    for name in DEFAULT_TABLES:
        if (root / name).is_file():
            return root / name
    raise FileNotFoundError(f"{root} has no {' and no '.join(DEFAULT_TABLES)}; name the label table with --labels")


def read_table_collection(root: Path, labels: Path) -> Collection:
    """Read the photos of a folder with its label table.

    Rows may have an empty `typename`; these photos, and files without a row, are the unlabelled ones. Raises
    `FileNotFoundError`, or `ValueError` for a table that cannot be used.
    """
    if not labels.is_file():
        raise FileNotFoundError(f"no label table {labels}; --labels names it")
    header, *rows = _cells(labels)
    columns = [name.strip() for name in header]
    is_typed = _typed_rows(columns, rows)
    listing = list_table(root, labels) if all(is_typed) else _list_typed(root, labels, header, rows, is_typed)
    empty = [""] * len(columns)  # a row may have more or fewer cells
    cells = [[cell.strip() for cell in [*row, *empty][: len(columns)]] for row in rows]
    text = pd.DataFrame(cells, columns=columns, dtype=object)
    labelled = text.iloc[listing.table["row"] - _FIRST_ROW].reset_index(drop=True)
    labelled["filename"] = listing.table["filename"]
    labelled.insert(0, "path", listing.table["path"])
    untyped = text[[not typed for typed in is_typed]]
    unlabelled, missing = _unlabelled(root, listing.unlisted, untyped)
    return Collection(labelled, unlabelled, tuple(columns), missing)


def read_fgvc_collection(root: Path, level: str, extracted: Path) -> Collection:
    """Read FGVC-Aircraft, a folder or the archive, which is unpacked into `extracted`; every photo has a type.

    Raises `FileNotFoundError` or `ValueError`.
    """
    table = list_fgvc(root, level, extracted).table
    columns = ["filename", "typename", "split"]
    columns += [name for name in BOX_COLUMNS if table[name].notna().any()]
    shown = table[["path", *columns]].astype(object)
    return Collection(shown.where(shown.notna(), ""), _no_photos(columns), tuple(columns))


def _cells(labels: Path) -> list[list[str]]:
    # What is no CSV in UTF-8 is refused by the reader of label tables, in words.
    text = labels.read_text(encoding="utf-8-sig", errors="replace").replace("\0", "")
    return list(csv.reader(io.StringIO(text, newline=""))) or [[]]


def _typed_rows(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[bool]:
    """Whether each row has a type. An empty row counts as one that has: nothing is missing in it."""
    if "typename" not in columns:
        return [True] * len(rows)
    place = columns.index("typename")
    return [not any(map(str.strip, row)) or bool("".join(row[place : place + 1]).strip()) for row in rows]


def _list_typed(
    root: Path, labels: Path, header: Sequence[str], rows: Sequence[Sequence[str]], is_typed: Sequence[bool]
) -> Listing:
    """List the rows that have a type; the others are emptied, so that each row keeps its number."""
    if not any(typed and any(row) for row, typed in zip(rows, is_typed, strict=True)):
        raise ValueError(f"{labels}: no row has a type; label some photos first, at least two types")
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / labels.name
        with copy.open("w", encoding="utf-8", newline="") as file:
            kept = (row if typed else [""] * len(header) for row, typed in zip(rows, is_typed, strict=True))
            csv.writer(file).writerows([header, *kept])
        try:
            return list_table(root, copy)
        except ValueError as error:
            raise ValueError(str(error).replace(str(copy), str(labels))) from None


def _unlabelled(root: Path, unlisted: Sequence[str], untyped: pd.DataFrame) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Return the files without a type, each with what its row says if it has one, and the rows without a file."""
    if not len(untyped.columns):
        return _no_photos(()), ()
    of_file = {_composed(row["filename"]): row for row in untyped.to_dict("records")}
    empty: dict[Hashable, object] = dict.fromkeys(untyped.columns, "")
    rows = []
    for name in unlisted:
        row = of_file.pop(_composed(name), empty)
        rows.append(dict(row) | {"path": root / name, "filename": name})
    photos = pd.DataFrame(rows, columns=["path", *untyped.columns], dtype=object)
    return photos, tuple(str(row["filename"]) for row in of_file.values())


def _composed(name: object) -> str:
    return unicodedata.normalize("NFC", str(name).replace("\\", "/"))


def _no_photos(columns: Sequence[str]) -> pd.DataFrame:
    return pd.DataFrame(columns=["path", *columns], dtype=object)
