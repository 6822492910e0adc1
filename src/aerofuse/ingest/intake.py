"""Taking in photo files: each photo is read, checked, fingerprinted and resized once, and kept.

The hash of its name puts a file into one of several shards, of a few hundred files each. A shard is written whole or
not at all. Its name covers the settings, and the sizes and times of its files. So a run that was stopped goes on where
it was, a changed label reads no photo again, and a new photo only its shard. Memory holds one shard per process.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import mmap
import multiprocessing
import os
import sys
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import psutil
import pyarrow as pa
from tqdm.auto import tqdm

from aerofuse.data.jpeg import decode_image, encode_image
from aerofuse.data.photo import Box, Fit, UnreadablePhotoError, crop_to_box, fit_square, open_photo
from aerofuse.ingest.fingerprint import fingerprint
from aerofuse.ingest.remote import PhotoLocation, RemoteFile

logger = logging.getLogger(__name__)

_VERSION = 4  # of the shards; raise it when a change gives other pixels
_SHARD_FILES = 256
# Each takes 170 MB before it reads anything, and a large photo takes as much again; `prepare` stays below 2 GB.
_MOST_PROCESSES = 4
_SCHEMA = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field("problem", pa.string()),
        pa.field("remarks", pa.list_(pa.string())),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("fingerprint", pa.binary()),
        pa.field("image", pa.binary()),
        pa.field("cropped", pa.binary()),
    ]
)


@dataclass(frozen=True)
class IntakeSettings:
    """How photos are resized: by `fit` to a square of `side_px`, after `banner_px` rows at the bottom are cut off.

    With `crop_padding`, photos with a box are also kept cropped to it, with that share of its sides around.
    """

    side_px: int
    banner_px: int = 0
    crop_padding: float | None = None
    fit: Fit = "letterbox"


@dataclass(frozen=True)
class PhotoFile:
    """A file to take in, and the box of the aircraft, if that is known."""

    path: PhotoLocation
    box: Box | None = None


# Held while a large photo is read; one lock for all processes.
_large_at_a_time: AbstractContextManager[object] = nullcontext()
ShardWork = tuple[Sequence[PhotoFile], Path]  # the files of a shard, and the path of the shard
# Writes every shard, whole or not at all, and yields the number of files of each when it is written.
Engine = Callable[[Sequence[ShardWork], IntakeSettings], Iterator[int]]


def take_in_here(work: Sequence[ShardWork], settings: IntakeSettings) -> Iterator[int]:
    """Write every shard in a few processes of this machine; yield the number of files of each when it is written."""
    processes = min(len(os.sched_getaffinity(0)), _MOST_PROCESSES, len(work))
    write = partial(_write_here, settings)
    if processes < 2:
        yield from map(write, work)
        return
    # Spawned, because the parent has threads, which do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, _start_process, (context.Lock(),)) as pool:
        yield from pool.map(write, work)


class Intake:
    """Photo files that were taken in: facts about each, and its image."""

    def __init__(
        self, files: Sequence[PhotoFile], settings: IntakeSettings, folder: Path, engine: Engine = take_in_here
    ) -> None:
        """Read what `folder` does not hold yet, and remove what it holds of other files or settings."""
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob("*.partial"):
            # Another process may be writing it.
            process = left.stem.partition(".")[2]
            if not (process.isdecimal() and psutil.pid_exists(int(process))):
                left.unlink(missing_ok=True)
        shards = _deal(files, settings)
        wanted = {name: folder / f"{name}.arrow" for name in shards}
        missing = [name for name, path in wanted.items() if not path.is_file()]
        if len(missing) < len(wanted):
            logger.info("%d of %d shards of photos are there already", len(wanted) - len(missing), len(wanted))
        if missing:
            _take_in([(shards[name], wanted[name]) for name in missing], settings, engine)
        for path in folder.glob("*.arrow"):
            if path.stem not in wanted:
                path.unlink()
        self._places: dict[str, tuple[_Shard, int]] = {}
        known = []
        for path in wanted.values():
            shard = _Shard(path)
            self._places |= {name: (shard, row) for row, name in enumerate(shard.table["path"].to_pylist())}
            known.append(shard.table.drop_columns(["image", "cropped"]).to_pandas())
            shard.give_pages_back()
        self._paths = [str(file.path) for file in files]
        self.facts = pd.concat(known).set_index("path").loc[self._paths].reset_index(drop=True)
        """Per file, in order: `problem` (`None` for a photo that can be used), `remarks`, size, `fingerprint`."""

    def image(self, number: int, *, cropped: bool = False) -> npt.NDArray[np.uint8]:
        """Return one image, RGB `[side, side, 3]`; `cropped` to its box where it has one."""
        shard, row = self._places[self._paths[number]]
        encoded = shard.table["cropped"][row] if cropped else None
        if encoded is None or not encoded.is_valid:
            encoded = shard.table["image"][row]
        image = decode_image(encoded.as_buffer())
        shard.give_pages_back()
        return image


class _Shard:
    """A memory-mapped shard: its table, and the pages behind it."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self._pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.table = pa.ipc.open_file(pa.py_buffer(self._pages)).read_all()

    def give_pages_back(self) -> None:
        """Release the pages that were read, which count as memory of this process."""
        self._pages.madvise(mmap.MADV_DONTNEED)


def _deal(files: Sequence[PhotoFile], settings: IntakeSettings) -> dict[str, list[PhotoFile]]:
    """The files of each shard, by the name of the shard."""
    count = 1
    while count * _SHARD_FILES < len(files):
        count *= 2  # doubled, so that a few photos more or less leave most shards unchanged
    buckets: dict[int, list[PhotoFile]] = {}
    for file in sorted(files, key=lambda file: str(file.path)):
        buckets.setdefault(zlib.crc32(os.fsencode(str(file.path))) % count, []).append(file)
    return {shard_name(bucket, settings): bucket for bucket in buckets.values()}


def shard_name(files: Sequence[PhotoFile], settings: IntakeSettings) -> str:
    """Return what names a shard of these files, as they are now."""
    facts = [[str(file.path), _state(file.path), None if file.box is None else asdict(file.box)] for file in files]
    described = [_VERSION, asdict(settings), facts]
    return hashlib.sha256(json.dumps(described).encode()).hexdigest()[:32]


def _state(path: PhotoLocation) -> list[Any]:
    """What tells a file from another one of its name; nothing where there is no file."""
    if isinstance(path, RemoteFile):
        return list(path.version)
    with suppress(OSError):
        stat = path.stat()
        return [stat.st_size, stat.st_mtime_ns]
    return []


def _take_in(work: Sequence[ShardWork], settings: IntakeSettings, engine: Engine) -> None:
    total = sum(len(files) for files, _ in work)
    read = 0
    on_terminal = sys.stderr.isatty()
    with tqdm(total=total, desc="photos read", unit="photo", disable=not on_terminal) as bar:
        for number_done in engine(work, settings):
            bar.update(number_done)
            tenths = 10 * read // total
            read += number_done
            if not on_terminal and 10 * read // total > tenths:  # a log has a line for every tenth
                logger.info("%d of %d photos read", read, total)


def _start_process(large_at_a_time: AbstractContextManager[object]) -> None:
    """Set up a process that reads photos. It ends with the process that started it, even if that was killed."""
    global _large_at_a_time
    _large_at_a_time = large_at_a_time
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _write_here(settings: IntakeSettings, work: ShardWork) -> int:
    files, path = work
    write_shard(path, shard_content(files, settings, _large_at_a_time))
    return len(files)


def write_shard(path: Path, content: pa.Buffer) -> None:
    """Write a shard, whole or not at all."""
    # An experiment that runs at the same time may write the same shard.
    partial_path = path.with_suffix(f".{os.getpid()}.partial")
    partial_path.write_bytes(content)
    partial_path.replace(path)


def shard_content(
    files: Sequence[PhotoFile], settings: IntakeSettings, large_at_a_time: AbstractContextManager[object]
) -> pa.Buffer:
    """Read files and return their shard, an Arrow file. `large_at_a_time` is held while a large photo is read."""
    rows = [_row(file, settings, large_at_a_time) for file in files]
    content = pa.BufferOutputStream()
    with pa.ipc.new_file(content, _SCHEMA) as writer:
        writer.write_batch(pa.RecordBatch.from_pylist(rows, schema=_SCHEMA))
    return content.getvalue()


def _row(file: PhotoFile, settings: IntakeSettings, large_at_a_time: AbstractContextManager[object]) -> dict[str, Any]:
    try:
        source = io.BytesIO(file.path.read()) if isinstance(file.path, RemoteFile) else file.path
        read = partial(open_photo, source, banner_px=settings.banner_px, large_at_a_time=large_at_a_time)
        photo = read(settings.side_px)
        cropped = None
        if file.box is not None and settings.crop_padding is None:
            crop_to_box(photo, file.box, 0.0)  # refuses a box outside of the photo
        elif file.box is not None:
            # The box may be a small part of the photo, so a crop needs more pixels. The whole photo must not have
            # more than prediction gives it, because a JPEG that is decoded larger gives other pixels.
            part = crop_to_box(read(4 * settings.side_px), file.box, settings.crop_padding or 0.0)
            cropped = encode_image(fit_square(part, settings.side_px, settings.fit))
    except UnreadablePhotoError as error:
        return {"path": str(file.path), "problem": str(error), "remarks": []}
    width, height = photo.size
    return {
        "path": str(file.path),
        "problem": None,
        "remarks": list(photo.remarks),
        "width": width,
        "height": height,
        "fingerprint": fingerprint(photo.image),
        "image": encode_image(fit_square(photo.image, settings.side_px, settings.fit)),
        "cropped": cropped,
    }
