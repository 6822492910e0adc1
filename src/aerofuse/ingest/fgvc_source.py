"""Listing the photos of FGVC-Aircraft, extracted or as the downloaded archive, with its official split."""

from __future__ import annotations

import json
import logging
import shutil
import tarfile
from pathlib import Path

import pandas as pd
from tqdm.auto import tqdm

from aerofuse.ingest.label_table import BOX_COLUMNS
from aerofuse.ingest.listing import Listing, refuse_repeated_files
from aerofuse.ingest.params import split_named

logger = logging.getLogger(__name__)

BANNER_PX = 20  # the copyright line at the bottom of every photo
_OFFICIAL = ("train", "val", "test")


def list_fgvc(root: Path, level: str, extracted: Path) -> Listing:
    """List the photos of all three splits. `root` is a folder, or the archive, which is unpacked into `extracted`.

    Raises `FileNotFoundError` where the layout is another one, `ValueError` for lists that contradict each other.
    """
    if not root.exists():
        raise FileNotFoundError(f"data.root is {str(root)!r}: no such folder or archive; docs/data.md says where it is")
    data = _data_folder(extract_archive(root, extracted) if root.is_file() else root)
    table = pd.concat([_read_split(data, level, official) for official in _OFFICIAL], ignore_index=True)
    for column, values in _read_boxes(data / "images_box.txt").items():
        table[column] = [values.get(photo) for photo in table["id"]]
    table["filename"] = table["id"] + ".jpg"
    table["path"] = [data / "images" / name for name in table["filename"]]
    table[["airlinename", "clarity", "block", "registration"]] = None
    places = table.pop("place")
    refuse_repeated_files(table, places)
    return Listing(table.drop(columns="id"), places, tuple(sorted(table["typename"].unique())), ())


def extract_archive(archive: Path, folder: Path) -> Path:
    """Unpack a tar file, compressed or not, into `folder`, unless the folder already holds the same archive.

    Raises `ValueError` for a file that is not a tar archive, is damaged, or would write outside of the folder.
    """
    stat = archive.stat()
    record = {"archive": str(archive.resolve()), "bytes": stat.st_size, "modified_ns": stat.st_mtime_ns}
    known = folder / "extracted.json"
    if known.is_file() and json.loads(known.read_text()) == record:
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    unfinished = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    logger.info("unpacking %s", archive)
    try:
        with tarfile.open(archive) as tar, tqdm(desc="files unpacked", unit="file", disable=None) as bar:
            for member in tar:
                # Refuses absolute paths, paths and links that lead outside, and devices.
                tar.extract(member, unfinished, filter="data")
                bar.update()
    except tarfile.FilterError as error:
        raise ValueError(f"{archive} is not safe to unpack: {error}") from None
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        raise ValueError(f"{archive} cannot be unpacked: {error}; download it again") from None
    (unfinished / known.name).write_text(json.dumps(record))
    unfinished.replace(folder)
    return folder


def _data_folder(root: Path) -> Path:
    """The folder that holds `images` and the lists: the root, or one or two levels below it."""
    for folder in (root, *sorted(root.glob("*")), *sorted(root.glob("*/*"))):
        if (folder / "images").is_dir() and any(folder.glob("images_*_*.txt")):
            return folder
    raise FileNotFoundError(
        f"{root} has no folder `images` beside lists such as images_variant_train.txt; data.root must be the extracted "
        "FGVC-Aircraft, or its .tar.gz"
    )


def _read_split(data: Path, level: str, official: str) -> pd.DataFrame:
    """Line number, photo and class: `0034309 707-320`."""
    path = data / f"images_{level}_{official}.txt"
    rows = []
    for number, line in enumerate(_lines(path), start=1):
        photo, _, name = line.partition(" ")
        if not name.strip():
            raise ValueError(f"{path}, line {number}: {line!r} is not a photo and its class")
        rows.append((number, photo, name.strip(), f"{path.name}, line {number}"))
    return pd.DataFrame(rows, columns=["row", "id", "typename", "place"]).assign(split=split_named(official))


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        raise FileNotFoundError(f"{path.parent} has no {path.name}; is the archive complete?")
    return [line for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]


def _read_boxes(path: Path) -> dict[str, dict[str, float]]:
    """Edges by column and photo, in pixels as `Box` counts them; the file counts from 1."""
    boxes: dict[str, dict[str, float]] = {name: {} for name in BOX_COLUMNS}
    if not path.is_file():
        return boxes
    for number, line in enumerate(_lines(path), start=1):
        photo, *edges = line.split()
        if len(edges) != 4 or not all(edge.isdecimal() for edge in edges):
            raise ValueError(f"{path}, line {number}: {line!r} is not a photo and four pixels")
        xmin, ymin, xmax, ymax = map(float, edges)
        for column, value in zip(boxes, (xmin - 1, ymin - 1, xmax, ymax), strict=True):
            boxes[column][photo] = value
    return boxes
