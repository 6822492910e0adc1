"""The label table: a CSV with a row per photo. Every fault is named with its row, value and remedy."""

from __future__ import annotations

import csv
import difflib
import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Self

import pandas as pd
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from aerofuse.ingest.params import Paths, split_named
from aerofuse.ingest.spelling import fold, odd_characters, says_nothing

REQUIRED = ("filename", "typename")
BOX_COLUMNS = ("xmin", "ymin", "xmax", "ymax")
# Columns that `prepare` adds to data/prepared/table.parquet.
RESERVED = ("row", "path", "width", "height", "remarks", "near_duplicates", "group", "source_type", "given_split")
_OWN = "my_"  # what begins so is a column of the user's own, however it resembles one of ours
_SHOWN = 10  # faults of one kind in a message; the rest is counted
_ROWS_AT_A_TIME = 5000  # a row takes two kilobytes as objects
_FIRST_ROW = 2  # as a spreadsheet counts: the header is row 1


def _number(text: str) -> object:
    """A number as people write it; `None` where the cell is empty."""
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        if text.count(",") == 1 and text.replace(",", "").replace("-", "").isdigit():
            raise ValueError("write it with a point instead of the comma") from None
        value = math.nan
    if not math.isfinite(value):
        raise ValueError("write a number, or leave the cell empty where it is not known")
    return value


def _name(text: str) -> str | None:
    if text and says_nothing(text):
        raise ValueError("leave the cell empty where it is not known; if it is a name, write it in other words")
    return text or None


def _type_name(text: str) -> str:
    if says_nothing(text):
        raise ValueError("every photo needs a type; fill it in or take the row out")
    return text


def _relative(text: str) -> str:
    """A path below the root, with forward slashes."""
    path = text.replace("\\", "/")
    if not path:
        raise ValueError("name the photo's file, relative to data.root")
    parts = PurePosixPath(path).parts
    if path.startswith("/") or (len(path) > 1 and path[1] == ":"):
        raise ValueError("write the path relative to data.root")
    if ".." in parts:
        raise ValueError("the path leaves data.root; move the photo below it")
    return str(PurePosixPath(*parts))


def _split(text: str) -> str:
    if text == "":
        raise ValueError("write train, validation or test, or take out the whole column to have a split made")
    return split_named(text)


_Share = Annotated[Annotated[float, Field(ge=0, le=1)] | None, BeforeValidator(_number)]
_Pixel = Annotated[Annotated[float, Field(ge=0)] | None, BeforeValidator(_number)]
_Id = Annotated[Annotated[int, Field(ge=0)] | None, BeforeValidator(_number)]
_OptionalName = Annotated[str | None, BeforeValidator(_name)]


class LabelRow(BaseModel):
    """One checked row. A missing value is `None`; columns of the user's own are kept as text."""

    model_config = ConfigDict(frozen=True, extra="allow")

    filename: Annotated[str, BeforeValidator(_relative)]
    typename: Annotated[str, BeforeValidator(_type_name)]
    airlinename: _OptionalName = None
    clarity: _Share = None
    block: _Share = None
    registration: _OptionalName = None
    split: Annotated[str | None, BeforeValidator(_split)] = None
    typeid: _Id = None
    airlineid: _Id = None
    xmin: _Pixel = None
    ymin: _Pixel = None
    xmax: _Pixel = None
    ymax: _Pixel = None

    @model_validator(mode="after")
    def _whole_box(self) -> Self:
        box = [getattr(self, name) for name in BOX_COLUMNS]
        if any(edge is None for edge in box):
            if any(edge is not None for edge in box):
                edges = zip(BOX_COLUMNS, box, strict=True)
                given = ", ".join(f"{name} {edge:g}" for name, edge in edges if edge is not None)
                raise ValueError(
                    f"a box needs all of xmin, ymin, xmax, ymax, and has {given} alone; leave all four empty where "
                    "there is none"
                )
        elif not (box[0] < box[2] and box[1] < box[3]):
            raise ValueError(f"the box {box} is empty: xmin must be below xmax, ymin below ymax")
        return self


@dataclass(frozen=True)
class LabelTable:
    """The rows as a frame: all columns of `LabelRow`, those of the user's own, and `row`, the row in the file.

    There is a column `split` only where the split came with the data. `places` says of each row where it stands.
    `types` and `airlines` are in the order of the ids in the table, else sorted.
    """

    frame: pd.DataFrame
    places: pd.Series
    types: tuple[str, ...]
    airlines: tuple[str, ...]


def read_label_table(labels: Paths) -> LabelTable:
    """Read and check a label table, or one for each split: UTF-8 with or without BOM, comma-separated, one header row.

    Blanks around values are removed. Raises `FileNotFoundError`, or `ValueError` that lists all faults of one kind.
    """
    if isinstance(labels, Mapping):
        tables = [_read_table_of_split(path, split) for split, path in labels.items()]
        frame = pd.concat(tables, ignore_index=True)
        paths = [path for path, table in zip(labels.values(), tables, strict=True) for _ in range(len(table))]
        rows = pd.Series([f"{row} of {path}" for row, path in zip(frame["row"], paths, strict=True)], dtype=object)
        whole = "data.labels"
    else:
        frame = _read_table(labels)
        rows, whole = frame["row"].astype(str), str(labels)
    named = frame.assign(row=rows)
    _refuse(whole, _confusable_names(named))
    types = _class_list(whole, named, "typename", "typeid")
    return LabelTable(frame, "row " + rows, types, _class_list(whole, named, "airlinename", "airlineid"))


def _read_table(path: Path) -> pd.DataFrame:
    """The checked rows of one table."""
    frame = _read_text(path)
    frame.insert(0, "row", range(_FIRST_ROW, _FIRST_ROW + len(frame)))
    frame = frame[(frame.drop(columns="row") != "").any(axis="columns")]  # a spreadsheet leaves empty rows at the end
    if frame.empty:
        raise ValueError(f"{path} has a header and no photos; add a row per photo")
    starts = range(0, len(frame), _ROWS_AT_A_TIME)
    parts = [_check_rows(frame.iloc[start : start + _ROWS_AT_A_TIME]) for start in starts]
    _refuse(path, (fault for _, faults in parts for fault in faults))
    checked = pd.concat([rows for rows, _ in parts], ignore_index=True)
    checked.insert(0, "row", frame["row"].to_numpy())
    _refuse(path, _repeated_files(checked))
    return checked if "split" in frame else checked.drop(columns="split")


def _read_table_of_split(path: Path, split: str) -> pd.DataFrame:
    table = _read_table(path)
    if "split" in table:
        others = table[table["split"] != split]
        remedy = f"data.labels gives the table for {split}; correct the cell, or take out the column"
        _refuse(path, (f"row {row}, split {found!r}: {remedy}" for row, found in _pairs(others, "split")))
    return table.assign(split=split)


def _read_text(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise FileNotFoundError(f"no label table {path}; data.labels in params.yaml names it")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise ValueError(f"{path}, row {line}: not UTF-8; save the table as `CSV UTF-8`") from None
    if not text.strip():
        raise ValueError(f"{path} is empty; it needs a header with {', '.join(REQUIRED)} and a row per photo")
    if "\0" in text:
        row = text[: text.index("\0")].count("\n") + 1
        raise ValueError(f"{path}, row {row}: a character NUL, which no text has; save the table as `CSV UTF-8`")
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        names = _column_names(path, next(rows))
        cells = [[cell.strip() for cell in row] for row in rows]
    except csv.Error as error:
        raise ValueError(f"{path}, line {rows.line_num}, is not a table: {error}; a quote may be missing") from None
    long = (
        f"row {number}: {len(row)} values under {len(names)} headings; quote values that hold commas"
        for number, row in enumerate(cells, start=_FIRST_ROW)
        if any(row[len(names) :])
    )
    _refuse(path, long)
    # A row may have fewer cells than headings, or empty cells beyond them.
    whole = [row[: len(names)] + [""] * (len(names) - len(row)) for row in cells]
    return pd.DataFrame(whole, columns=names, dtype=object)


def _column_names(path: Path, found: Sequence[str]) -> list[str]:
    names = [name.strip() or f"column {number}" for number, name in enumerate(found, start=1)]
    if len(names) == 1 and any(mark in names[0] for mark in ";\t"):
        raise ValueError(f"{path} is separated by semicolons or tabs; save it separated by commas")
    near = _near_misses(names)
    for name in REQUIRED:
        if name not in names:
            hint = next((f"; is it {found!r}? Rename it" for found, known in near.items() if known == name), "")
            raise ValueError(f"{path} has no column {name!r}{hint}; it has: {', '.join(names)}")
    misread = (
        f"column {name!r}{odd_characters(name, known)}: is it {known!r}? Rename it, or call it {_OWN + name!r} if it "
        "is one of your own"
        for name, known in near.items()
    )
    _refuse(path, misread)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{path} has the column {twice[0]!r} twice; remove one")
    taken = [name for name in names if name.lower() in RESERVED]
    if taken:
        raise ValueError(
            f"{path} has a column {taken[0]!r}, which the prepared table has of its own; rename it, for example to "
            f"'{_OWN}{taken[0]}'"
        )
    return names


def _near_misses(names: Sequence[str]) -> dict[str, str]:
    """Return the headings that are nearly one that is known, each with that one; a person reads them as the same."""
    keys = {_heading_key(known): known for known in LabelRow.model_fields}
    missing = [key for key, known in keys.items() if known not in names]
    near = {}
    for name in names:
        if name in LabelRow.model_fields or name.startswith(_OWN):
            continue
        key = _heading_key(name)
        # `type` and `airline` mean a name, not its number.
        candidates = [known for known in missing if key.endswith("id") or not known.endswith("id")]
        for found in [key] if key in keys else difflib.get_close_matches(key, candidates, n=1, cutoff=0.75):
            near[name] = keys[found]
    return near


def _heading_key(name: str) -> str:
    return "".join(letter for letter in fold(name) if letter.isalnum())


def _check_rows(frame: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The rows with the values of `LabelRow`, and the faults, if there are any."""
    records = frame.drop(columns="row").to_dict("records")
    try:
        rows = TypeAdapter(list[LabelRow]).validate_python(records)
        return pd.DataFrame([row.model_dump() for row in rows], dtype=object), []
    except ValidationError as error:
        faults = []
        for problem in error.errors(include_url=False):
            position, *field = problem["loc"]
            message = problem["msg"].removeprefix("Value error, ")
            where = f"row {frame['row'].iloc[int(position)]}"
            name = str(field[0]) if field else ""
            value = f", {name} {records[int(position)].get(name, '')!r}" if field else ""
            faults.append(f"{where}{value}: {_in_words(name, message)}")
        return pd.DataFrame(), faults


def _in_words(column: str, message: str) -> str:
    if column in ("clarity", "block") and "equal to" in message:
        return "must be from 0 to 1; a percentage must be divided by 100"
    if column in ("typeid", "airlineid") and ("integer" in message or "equal to" in message):
        return "an id is a whole number from 0 on; leave the column out to have ids made"
    if column in BOX_COLUMNS and "equal to" in message:
        return "a box is in pixels from the upper left corner; none is below 0"
    return message


def _repeated_files(frame: pd.DataFrame) -> Iterator[str]:
    for name, rows in frame.groupby("filename", sort=False)["row"]:
        if len(rows) > 1:
            yield f"rows {', '.join(map(str, rows))}, filename {name!r}: listed more than once; keep one row"


def _confusable_names(frame: pd.DataFrame) -> Iterator[str]:
    """Names of classes and airframes in several spellings: in case, in blanks, in characters that look alike."""
    for column in ("typename", "airlinename", "registration"):
        first_rows = frame.dropna(subset=column).drop_duplicates(column)
        for _, group in first_rows.groupby(first_rows[column].map(fold), sort=False):
            if len(group) > 1:
                names = list(group[column])
                found = ", ".join(
                    f"{name!r} (row {row}{odd_characters(name, ''.join(each for each in names if each != name))})"
                    for row, name in _pairs(group, column)
                )
                yield f"{column}: {found} look alike; write one of them everywhere"


def _class_list(path: str, frame: pd.DataFrame, column: str, number: str) -> tuple[str, ...]:
    """The names in the order of their ids if the table has ids, else sorted."""
    named = frame.dropna(subset=column)
    names = sorted(named[column].unique())
    orphans = frame[frame[column].isna() & frame[number].notna()]
    _refuse(path, (f"row {row}, {number} {given}: no {column} beside it" for row, given in _pairs(orphans, number)))
    numbered = named.dropna(subset=number)
    if numbered.empty:
        return tuple(names)
    without = [name for name in names if name not in set(numbered[column])]
    faults = [
        *_not_one(numbered, column, number, "one name has one id"),
        *_not_one(numbered, number, column, "one id has one name"),
        *(f"{column} {name!r}: no row gives its {number}, and other rows have one" for name in without),
    ]
    _refuse(path, faults)
    by_id = dict(zip(numbered[number], numbered[column], strict=True))
    if sorted(by_id) != list(range(len(by_id))):
        raise ValueError(
            f"{path}: the {number} values are {sorted(by_id)}; they must be 0 to {len(by_id) - 1} without gaps, "
            "or leave the column out to have ids made"
        )
    return tuple(by_id[index] for index in range(len(by_id)))


def _pairs(frame: pd.DataFrame, column: str) -> Iterator[tuple[int | str, Any]]:
    yield from zip(frame["row"], frame[column], strict=True)


def _not_one(frame: pd.DataFrame, column: str, other: str, rule: str) -> Iterator[str]:
    different = frame.drop_duplicates([column, other])
    for value, group in different.groupby(column, sort=True):
        if len(group) > 1:
            found = ", ".join(f"{given!r} (row {row})" for row, given in _pairs(group, other))
            yield f"{column} {value!r} has {other} {found}: {rule}; make them equal"


def _refuse(path: Path | str, faults: Iterable[str]) -> None:
    found = list(faults)
    if found:
        shown = "\n".join(f"  {fault}" for fault in found[:_SHOWN])
        more = f"\n  and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise ValueError(f"{path} cannot be used:\n{shown}{more}")
