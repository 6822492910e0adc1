"""Prepared photos on disk: one Arrow file per split, images encoded, memory-mapped when read.

A few large files suit DVC better than many small ones, and a memory map lets every worker read any photo
without loading the rest. The same photos give the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import cv2
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from aerofuse.data.photo import Photo

# Photos are read side by side by processes, not by threads; and a worker that is forked while OpenCV has a pool
# of threads would wait for them for ever.
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

# Visually lossless and without chroma subsampling: what the labels say of clarity stays true.
JPEG_QUALITY = 95
_JPEG_SETTINGS = (
    cv2.IMWRITE_JPEG_QUALITY,
    JPEG_QUALITY,
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
)


class PhotoWriter:
    """Appends photos to an Arrow file, a few hundred at a time, so that memory stays bounded."""

    def __init__(self, path: Path, batch_rows: int = 256) -> None:
        self._writer = pa.ipc.new_file(path, _SCHEMA)
        self._batch_rows = batch_rows
        self._rows: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._flush()
        self._writer.close()

    def write(self, photo: Photo) -> None:
        """Append one photo."""
        row = {name: getattr(photo, name) for name in LABEL_COLUMNS}
        self._rows.append(row | {"image": encode_image(photo.image)})
        if len(self._rows) == self._batch_rows:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_batch(pa.RecordBatch.from_pylist(self._rows, schema=_SCHEMA))
            self._rows = []


def write_photos(path: Path, photos: Iterable[Photo]) -> None:
    """Write all photos to an Arrow file at `path`."""
    with PhotoWriter(path) as writer:
        for photo in photos:
            writer.write(photo)


def open_table(path: Path) -> pa.Table:
    """The Arrow file as a memory-mapped table. Raises `FileNotFoundError`."""
    if not path.is_file():
        raise FileNotFoundError(f"no prepared photos at {path}; `dvc repro prepare` makes them")
    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_file(source).read_all()


def encode_image(image: npt.NDArray[np.uint8]) -> bytes:
    """RGB `[H, W, 3]` as JPEG bytes."""
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), _JPEG_SETTINGS)
    return encoded.tobytes()


def decode_image(encoded: pa.Buffer | bytes) -> npt.NDArray[np.uint8]:
    """JPEG bytes as RGB `[H, W, 3]`."""
    return np.asarray(cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR_RGB), dtype=np.uint8)


def read_images(table: pa.Table, rows: Sequence[int]) -> list[npt.NDArray[np.uint8]]:
    """The images of some rows, RGB `[H, W, 3]` each."""
    return [decode_image(table["image"][row].as_buffer()) for row in rows]
