"""Prepared photos: one Arrow file per split, images encoded, memory-mapped when read.

DVC handles a few large files better than many small ones. A memory map lets every worker read any photo without
loading the rest. The same photos give the same bytes. Where the images are in shards, the file has what remains: see
`aerofuse.data.shards`.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from aerofuse.checkpointing.budget import parse_bytes
from aerofuse.data.jpeg import decode_image, encode_image
from aerofuse.data.photo import Fit, Photo
from aerofuse.data.shards import ShardParams, Shards, write_shards

_SCHEMA = pa.schema(
    [
        pa.field("filename", pa.string(), nullable=False),
        pa.field("typename", pa.string()),
        pa.field("airlinename", pa.string()),
        pa.field("clarity", pa.float32()),
        pa.field("block", pa.float32()),
        pa.field("registration", pa.string()),
        pa.field("image", pa.binary(), nullable=False),
    ]
)
LABEL_COLUMNS = tuple(name for name in _SCHEMA.names if name != "image")
_FIT = "fit"  # in the metadata of a file


def write_photos(
    path: Path, photos: Iterable[Photo], fit: Fit = "letterbox", shards: ShardParams | None = None
) -> None:
    """Write photos to an Arrow file at `path`, a few hundred at a time, so that memory stays bounded.

    `fit` says how they became square; the file records it. Where `shards` have a size, images go to shards. Raises
    `ConnectionError` where an object store refuses them.
    """
    schema = _SCHEMA.with_metadata({_FIT: fit})
    rows = (
        {name: getattr(photo, name) for name in LABEL_COLUMNS} | {"image": encode_image(photo.image)}
        for photo in photos
    )
    if shards is not None and shards.size is not None:
        write_shards(path, rows, schema, parse_bytes(shards.size), shards.url)
        return
    with pa.ipc.new_file(path, schema) as writer:
        while batch := list(islice(rows, 256)):
            writer.write_batch(pa.RecordBatch.from_pylist(batch, schema=schema))


def open_table(path: Path) -> pa.Table:
    """Open an Arrow file as a memory-mapped table. Raises `FileNotFoundError`, and `ValueError` where half is there."""
    if not path.is_file():
        raise FileNotFoundError(f"no prepared photos at {path}; `dvc repro prepare` makes them")
    try:
        with pa.memory_map(str(path)) as source:
            return pa.ipc.open_file(source).read_all()
    except pa.ArrowInvalid:
        raise ValueError(f"{path} is not whole; `dvc repro --force prepare` writes it again") from None


class PhotoStore:
    """The photos of one prepared split: labels, and images in the same file or in shards.

    It is pickled without what it maps: a worker maps it again.
    """

    def __init__(self, path: Path) -> None:
        """Open it, and find out whether all is there.

        Raises `FileNotFoundError` where nothing is, `ValueError` where parts are missing, `ConnectionError` where an
        object store refuses.
        """
        self._open(path)
        if isinstance(self.images, Shards):
            self.images.check()

    def _open(self, path: Path) -> None:
        self.path = path
        table = open_table(path)
        self.labels: pa.Table = table.select(list(LABEL_COLUMNS))
        self.images: pa.ChunkedArray | Shards = table["image"] if "image" in table.schema.names else Shards(path, table)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def fit(self) -> Fit:
        """How the photos became square."""
        return cast(Fit, (self.labels.schema.metadata or {}).get(_FIT.encode(), b"letterbox").decode())  # older: none

    def encoded(self, row: int) -> pa.Buffer | bytes:
        """Return one image as it is stored: JPEG."""
        return self.images.read(row) if isinstance(self.images, Shards) else self.images[row].as_buffer()

    def image(self, row: int) -> npt.NDArray[np.uint8]:
        """Return one image, RGB `[H, W, 3]`."""
        return decode_image(self.encoded(row))

    def fetched_again(self, num_shuffled: int | None) -> str | None:
        """Return what `Shards.fetched_again` does; a file with its images needs no fetching."""
        return self.images.fetched_again(num_shuffled) if isinstance(self.images, Shards) else None

    def shard_lengths(self) -> list[int]:
        """Return the number of photos of each shard, in order; a file with its images is one."""
        return self.images.lengths if isinstance(self.images, Shards) else [len(self)]

    def __getstate__(self) -> Path:
        return self.path

    def __setstate__(self, path: Path) -> None:
        self._open(path)
