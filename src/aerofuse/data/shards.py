"""Shards: the images of a split in several tar files, here or in an object store, for data larger than a disk.

The Arrow file of such a split is an index: the labels, where each image lies, and the size and hash of each shard. It
is written last, so that shards without it are known for what an interrupted run left. A hash in a shard's name lets
several commits share a folder of a store.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import accumulate, chain
from pathlib import Path
from typing import Any, BinaryIO, Self
from uuid import uuid4

import pyarrow as pa
from pydantic import Field, field_validator, model_validator

from aerofuse.checkpointing.budget import format_bytes, parse_bytes
from aerofuse.common.params import Section
from aerofuse.data.object_store import is_remote, open_store, refusals
from aerofuse.data.shard_cache import ShardCache

_PLACES = (pa.field("offset", pa.int64(), nullable=False), pa.field("length", pa.int32(), nullable=False))
_SHARDS = b"shards"  # in the metadata of an index
_AGAIN = "`dvc repro --force prepare` writes them again"


class ShardParams(Section):
    """Whether `prepare` writes shards, and where to."""

    size: str | None = Field(description="about so large is each, such as 256 MB; null: one file a split")
    url: str | None = Field(description="of a folder in an object store, such as s3://bucket/shards; null: here")

    @field_validator("size")
    @classmethod
    def _size_is_one(cls, value: str | None) -> str | None:
        if value is not None:
            parse_bytes(value)
        return value

    @field_validator("url")
    @classmethod
    def _url_is_an_address(cls, value: str | None) -> str | None:
        if value is not None and not is_remote(value):
            raise ValueError("write an address such as s3://bucket/shards, or null for beside the index")
        return value and value.rstrip("/")

    @model_validator(mode="after")
    def _what_is_in_a_store_has_a_size(self) -> Self:
        if self.url is not None and self.size is None:
            raise ValueError("url is given, and size is null; write a size such as 256 MB, or set url to null")
        return self


@dataclass(frozen=True)
class ShardFile:
    """A tar file of images, which are in the order of the split."""

    name: str
    num_photos: int
    num_bytes: int
    sha256: str


def write_shards(
    index: Path, rows: Iterable[dict[str, Any]], schema: pa.Schema, most_bytes: int, url: str | None
) -> None:
    """Write shards of `rows`, which have the columns of `schema`, to `url` or beside their index, and then the index.

    The same rows give the same bytes. Raises `ConnectionError` where the store refuses, `FileNotFoundError` where there
    is no such bucket or folder.
    """
    index.unlink(missing_ok=True)
    for left in index.parent.glob(f"{index.stem}-*"):  # of other photos, or of a run that was interrupted
        left.unlink()
    labels = [field for field in schema if field.name != "image"]
    shards: list[ShardFile] = []
    batches = []
    waiting = iter(rows)
    for first in waiting:
        partial = index.with_name(f"{index.stem}-{len(shards):05d}.partial")
        places = list(_write_tar(partial, chain([first], waiting), most_bytes))
        batches.append(pa.RecordBatch.from_pylist(places, schema=pa.schema([*labels, *_PLACES])))
        shards.append(_place(partial, len(places), url))
    described = {"url": url, "shards": [asdict(shard) for shard in shards]}
    whole = pa.schema([*labels, *_PLACES], metadata={**schema.metadata, _SHARDS: json.dumps(described)})
    partial = index.with_suffix(".partial")
    with pa.ipc.new_file(partial, whole) as writer:
        for batch in batches:
            writer.write_batch(batch)
    partial.replace(index)


def check_store(url: str) -> None:
    """Write a file there and remove it. Raises what `write_shards` raises, before there is work to lose."""
    with refusals(url):
        store, folder = open_store(url)
        probe = f"{folder}/probe-{uuid4()}"
        try:
            store.pipe_file(probe, b"-")
        except FileNotFoundError:
            raise FileNotFoundError(f"{url}: the bucket, or folder, is not there; make it first") from None
        store.rm_file(probe)


def _write_tar(path: Path, rows: Iterable[dict[str, Any]], most_bytes: int) -> Iterator[dict[str, Any]]:
    """Write images to a tar file until it is full; yield their rows with the place of each instead of the image."""
    with path.open("wb") as file, tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for number, row in enumerate(rows):
            image = row.pop("image")
            entry = tarfile.TarInfo(f"{number:08d}.jpg")
            entry.size = len(image)
            yield row | {"offset": file.tell() + tarfile.BLOCKSIZE, "length": len(image)}
            archive.addfile(entry, io.BytesIO(image))
            if file.tell() >= most_bytes:
                return


def _place(partial: Path, num_photos: int, url: str | None) -> ShardFile:
    """Put a whole tar file where it is read from, under its name."""
    with partial.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    shard = ShardFile(f"{partial.stem}-{sha256[:16]}.tar", num_photos, partial.stat().st_size, sha256)
    if url is None:
        partial.replace(partial.with_name(shard.name))
        return shard
    with refusals(url):
        store, folder = open_store(url)
        store.put_file(str(partial), f"{folder}/{shard.name}")
    partial.unlink()
    return shard


class Shards:
    """The images of a split that are in shards."""

    def __init__(self, index: Path, table: pa.Table) -> None:
        """Read the index. No shard is looked at."""
        described: Mapping[str, Any] = json.loads(table.schema.metadata[_SHARDS])
        self._index = index
        self._url: str | None = described["url"]
        self._cache = None if self._url is None else ShardCache.of_this_machine()
        self._shards = [ShardFile(**one) for one in described["shards"]]
        self._ends = list(accumulate(self.lengths))
        self._offsets, self._sizes = table["offset"].to_numpy(), table["length"].to_numpy()

    @property
    def lengths(self) -> list[int]:
        """The number of photos of each shard."""
        return [shard.num_photos for shard in self._shards]

    def check(self) -> None:
        """Look at the size of every shard.

        Raises `ValueError` where one is missing, cut short or larger than the cache, `ConnectionError` where the store
        refuses.
        """
        found = self._found()
        wrong = [shard for shard in self._shards if found.get(shard.name) != shard.num_bytes]
        if wrong:
            first = wrong[0]
            raise ValueError(
                f"{self._url or self._index.parent}: {len(wrong)} of {len(self._shards)} shards of {self._index} are "
                f"missing or cut short, such as {first.name} ({found.get(first.name, 0)} of {first.num_bytes} bytes); "
                f"{_AGAIN}"
            )
        if self._cache is not None:
            self._cache.check_room(max((shard.num_bytes for shard in self._shards), default=0))

    def _found(self) -> dict[str, int]:
        """The size of every file where shards are, by name."""
        if self._url is None:
            return {path.name: path.stat().st_size for path in self._index.parent.glob("*.tar")}
        with refusals(self._url):
            store, folder = open_store(self._url)
            store.invalidate_cache()  # what it remembers of the folder may be old
            try:
                files = store.ls(folder, detail=True)
            except FileNotFoundError:
                return {}
        return {Path(file["name"]).name: file["size"] for file in files}

    def read(self, row: int) -> bytes:
        """Return one image as it is stored. Raises `ValueError` where a shard is not what was written."""
        shard = self._shards[bisect_right(self._ends, row)]
        with self._open(shard) as file:
            image = os.pread(file.fileno(), self._sizes[row], self._offsets[row])
        if len(image) != self._sizes[row]:
            raise ValueError(f"{shard.name} is cut short; {_AGAIN}")
        return image

    def _open(self, shard: ShardFile) -> BinaryIO:
        if self._cache is None:
            return (self._index.parent / shard.name).open("rb")
        return self._cache.open(f"{self._url}/{shard.name}", shard.num_bytes, shard.sha256)

    def fetched_again(self, num_shuffled: int | None) -> str | None:
        """Return what is wrong with shuffling the photos of so many shards, or of all, over the cache; else `None`."""
        sizes = sorted((shard.num_bytes for shard in self._shards), reverse=True)
        mixed_bytes = sum(sizes[:num_shuffled])
        if self._cache is None or mixed_bytes <= self._cache.num_bytes:
            return None
        fitting = sum(end <= self._cache.num_bytes for end in accumulate(sizes))
        return (
            f"{self._index}: photos are shuffled over {format_bytes(mixed_bytes)} of shards, and shard_cache.size is "
            f"{format_bytes(self._cache.num_bytes)}: about {1 - self._cache.num_bytes / mixed_bytes:.0%} of all photos "
            f"fetch a shard of {format_bytes(sizes[0])} again; set training.shuffle_shards to at most {fitting}, or "
            "shard_cache.size higher"
        )
