"""Prepared photos on disk: one Arrow file per split, images encoded, memory-mapped when read.

DVC handles a few large files better than many small ones. A memory map lets every worker read any photo without
loading the rest. The same photos give the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from aerofuse.data.photo import Fit, Photo

# Processes read photos side by side, so threads would not help. A worker that is forked while OpenCV has a pool of
# threads would wait for them forever.
cv2.setNumThreads(1)

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

# Visually lossless and without chroma subsampling, so that the clarity labels stay true.
JPEG_QUALITY = 95
_JPEG_SETTINGS = (
    cv2.IMWRITE_JPEG_QUALITY,
    JPEG_QUALITY,
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
)


def write_photos(path: Path, photos: Iterable[Photo], fit: Fit = "letterbox") -> None:
    """Write photos to an Arrow file at `path`, a few hundred at a time, so that memory stays bounded.

    `fit` says how they became square; the file records it.
    """
    schema = _SCHEMA.with_metadata({_FIT: fit})
    rows = (
        {name: getattr(photo, name) for name in LABEL_COLUMNS} | {"image": encode_image(photo.image)}
        for photo in photos
    )
    with pa.ipc.new_file(path, schema) as writer:
        while batch := list(islice(rows, 256)):
            writer.write_batch(pa.RecordBatch.from_pylist(batch, schema=schema))


def open_table(path: Path) -> pa.Table:
    """Open an Arrow file as a memory-mapped table. Raises `FileNotFoundError`."""
    if not path.is_file():
        raise FileNotFoundError(f"no prepared photos at {path}; `dvc repro prepare` makes them")
    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_file(source).read_all()


def read_fit(table: pa.Table) -> Fit:
    """Return how the photos of an opened file became square."""
    return cast(Fit, (table.schema.metadata or {}).get(_FIT.encode(), b"letterbox").decode())  # older files lack it


def encode_image(image: npt.NDArray[np.uint8]) -> bytes:
    """Encode an RGB image `[H, W, 3]` as JPEG."""
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), _JPEG_SETTINGS)
    return encoded.tobytes()


def decode_image(encoded: pa.Buffer | bytes) -> npt.NDArray[np.uint8]:
    """Decode a JPEG as an RGB image `[H, W, 3]`."""
    return np.asarray(cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR_RGB), dtype=np.uint8)


def read_images(table: pa.Table, rows: Sequence[int]) -> list[npt.NDArray[np.uint8]]:
    """Decode the images of some rows, RGB `[H, W, 3]` each."""
    return [decode_image(table["image"][row].as_buffer()) for row in rows]
