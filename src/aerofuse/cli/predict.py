"""What is on photos: aircraft type, airline, how sharp the photo is, how much of the aircraft is hidden.

A photo that is unlike those that the model was trained on is called unfamiliar: its answers may mean nothing.

Results go to stdout: a table at the end, or one line per photo at once with --json (JSON Lines) or --csv. For a file
that cannot be used, the reason goes to stderr, and the other files follow. The exit status is 0 without any problem, 1
where a file could not be used, and 2 for a mistake in the command or a model that cannot be loaded.
"""

from __future__ import annotations

import argparse
import codecs
import csv
import glob
import io
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text
from tqdm import tqdm

import aerofuse
from aerofuse.cli.arguments import add_model_option, at_least, device_here
from aerofuse.data.image_file import FoundPhotos, find_photos
from aerofuse.inference.unfamiliarity import NOTICE, STATISTICS_FILE

Record = dict[str, Any]

_EXAMPLES = """examples:
  aerofuse predict photo.jpg
  aerofuse predict photos --json > predictions.jsonl
  find photos -name '*.jpg' -mtime -1 | aerofuse predict - --csv"""
_LIST = "-"  # stands for a list of names on stdin
_DIGITS = 6
_SUFFIXES = ".bmp, .gif, .heic, .jpg, .png, .tif, .webp and others"
_BAR_AFTER_S = 2.0
_MOST_LISTED = 10  # of the files that are passed over
_VALUES = ("clarity", "block", "quality_score", "unfamiliar_score")
_COLUMNS = ("file", "type", "type_confidence", "type_top5", "airline", "airline_confidence", *_VALUES, "unfamiliar")
_UNBOUNDED = 10_000  # characters
_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
_NONE = "-"  # where the model has no such head, or the name is left out
_UNFAMILIAR = "!"  # behind the score of an unfamiliar photo


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the subcommand takes."""
    parser.description, parser.epilog = __doc__, _EXAMPLES
    parser.add_argument(
        "paths", nargs="+", metavar="PATH", help="a photo, a folder, a 'pattern*.jpg', or - for a list on stdin"
    )
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--json", action="store_true", help="JSON Lines, an object a photo")
    output.add_argument("--csv", action="store_true", help="a line a photo; type_top5 is JSON in its cell")
    add_model_option(parser)
    parser.add_argument(
        "--batch-size", type=at_least(1), default=16, metavar="N", help="photos at a time (default: 16)"
    )
    parser.add_argument("--device", type=device_here, default="cpu", help="cpu, cuda or cuda:N (default: cpu)")
    parser.add_argument(
        "--banner-px",
        type=at_least(0),
        default=0,
        metavar="N",
        help="rows cut off at the bottom: 20 for FGVC-Aircraft (default: 0)",
    )
    parser.add_argument("--abstain", action="store_true", help="no type and no airline for unfamiliar photos")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Predict and print; the status is 1 where a file could not be used."""
    photos = list_photos(options.paths, read_names(sys.stdin))
    problems = len(photos.empty)
    for name, reason in photos.empty:
        _complain(name, reason)
    for name, files in photos.passed_over:
        _complain(name, files)
    if photos.files:
        predictor = aerofuse.load(options.model, options.device)
        if options.abstain and not predictor.knows_unfamiliar:
            raise ValueError(
                f"--abstain: {options.model} does not say which photos are unfamiliar: it has no {STATISTICS_FILE}; "
                "name a package that this version's stage `package` made (`dvc repro package`)"
            )
        write = _write_json if options.json else _write_csv if options.csv else _write_table
        with tqdm(
            total=len(photos.files), desc="photos", unit="photo", leave=False, delay=_BAR_AFTER_S, disable=None
        ) as bar:

            def records() -> Iterator[Record]:
                nonlocal problems
                results = predictor.predict_files(
                    photos.files, batch_size=options.batch_size, banner_px=options.banner_px
                )
                for result in results:
                    bar.update()
                    if result.prediction is None:
                        problems += 1
                        _complain(result.file, result.problem)
                    else:
                        found = result.prediction
                        if options.abstain and found.unfamiliar:
                            found = found.without_names()
                        yield {"file": _shown(result.file), **_rounded(found.to_dict())}

            write(records())
    return 1 if problems else 0


@dataclass(frozen=True)
class PhotoList:
    """Files in the order in which they were named, and what was named and is none.

    `empty` are names that stand for no file, and folders that cannot be read, with the reason. `passed_over` says of a
    folder which files in and below it are no photos by their suffix.
    """

    files: tuple[Path, ...]
    empty: tuple[tuple[str, str], ...]
    passed_over: tuple[tuple[str, str], ...] = ()


def list_photos(named: Sequence[str], lines: Iterable[str] = ()) -> PhotoList:
    """List the photos that `named` stands for; `-` stands for `lines`, with a name in each.

    A folder stands for all photos in it and below it, a pattern such as `2024/**/*.jpg` for its matches, both sorted.
    A named file is listed with any suffix, even if it is missing: reading it gives the reason.
    """
    names: list[str] = []
    for name in named:
        names += [line.rstrip("\r\n") for line in lines if line.strip()] if name == _LIST else [name]
    files: list[Path] = []
    empty: list[tuple[str, str]] = []
    passed_over: list[tuple[str, str]] = []
    for name in names:
        path = Path(name)
        # Unlike Path's methods, those of os.path take no exception at a name that is too long or a folder that is shut.
        if os.path.isdir(path):  # noqa: PTH112
            below = find_photos(path)
            found, reason = below.photos, f"no photo in this folder ({_SUFFIXES})"
            empty += [(str(folder), problem) for folder, problem in below.problems]
            if below.passed_over:
                reason += f"; {_listed(path, below)}"
            if below.passed_over and found:
                passed_over.append((name, _listed(path, below)))
        elif glob.has_magic(name) and not os.path.exists(path):  # noqa: PTH110
            matches = glob.glob(name, recursive=True)  # noqa: PTH207 (Path.glob takes no absolute one)
            found = tuple(sorted(Path(match) for match in matches if not os.path.isdir(match)))  # noqa: PTH112
            reason = "no file matches this pattern"
        else:
            found, reason = (path,), ""
        files += found
        if not found and not any(Path(folder) == path for folder, _ in empty):
            empty.append((name, reason))
    return PhotoList(tuple(files), tuple(empty), tuple(passed_over))


def read_names(stream: TextIO) -> Iterator[str]:
    """Read the lines of a list of files, which may begin with a byte order mark.

    It says that the list is in UTF-8 or UTF-16, whatever the console's encoding. Without it, odd bytes stay.
    """
    if isinstance(stream, io.TextIOWrapper):
        content = stream.buffer.read()
        marked = next((name for mark, name in _MARKS.items() if content.startswith(mark)), None)
        yield from content.decode(marked or stream.encoding, "strict" if marked else "surrogateescape").split("\n")
    else:
        yield from stream


def _complain(file: str | Path, problem: str | None) -> None:
    tqdm.write(f"aerofuse: {_shown(file)}: {problem}", file=sys.stderr)  # above the bar, where there is one


def _listed(folder: Path, found: FoundPhotos) -> str:
    files = found.passed_over
    names = ", ".join(_shown(file.relative_to(folder)) for file in files[:_MOST_LISTED])
    more = f" and {len(files) - _MOST_LISTED} more" if len(files) > _MOST_LISTED else ""
    return f"{len(files)} passed over: {names}{more}"


def _shown(file: str | Path) -> str:
    """Return a file's name as text; bytes that are not UTF-8 are escaped."""
    return os.fsencode(file).decode("utf-8", "backslashreplace")


def _rounded(record: Record) -> Record:
    return {
        name: round(value, _DIGITS)
        if isinstance(value, float)
        else [_rounded(candidate) for candidate in value]
        if isinstance(value, list)
        else value
        for name, value in record.items()
    }


def _json(value: object) -> str:
    """Return JSON in which stdout can write every character: as such in UTF-8, else escaped as JSON does."""
    return json.dumps(value, ensure_ascii=codecs.lookup(sys.stdout.encoding or "utf-8").name != "utf-8")


def _write_json(records: Iterable[Record]) -> None:
    for record in records:
        sys.stdout.write(_json(record) + "\n")
        sys.stdout.flush()


def _write_csv(records: Iterable[Record]) -> None:
    writer = csv.DictWriter(sys.stdout, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    for record in records:
        writer.writerow(record | {"type_top5": _json(record["type_top5"])})


def _write_table(records: Iterable[Record]) -> None:
    table = Table(box=SIMPLE_HEAD)
    table.add_column("file", overflow="fold")
    for column in ("type", "airline"):
        table.add_column(column, no_wrap=True)
    for column in _VALUES:
        table.add_column(column.removesuffix("_score"), justify="right")
    unfamiliar = False
    for record in records:
        cells = [record["file"], *(_with_confidence(record, task) for task in ("type", "airline"))]
        cells += [_NONE if record[name] is None else f"{record[name]:.2f}" for name in _VALUES]
        if record["unfamiliar"]:
            cells[-1] += _UNFAMILIAR
            unfamiliar = True
        table.add_row(*map(Text, cells))  # as text: brackets in a name are not markup
    console = Console()
    if not console.is_terminal:
        # In a file or a pipe no line is folded.
        console = Console(width=Console(width=_UNBOUNDED).measure(table).maximum)
    console.print(table)
    if unfamiliar:
        console.print(f"  {_UNFAMILIAR} {NOTICE}", markup=False, soft_wrap=True)


def _with_confidence(record: Record, task: str) -> str:
    return _NONE if record[task] is None else f"{record[task]}  {record[f'{task}_confidence']:.0%}"
