"""Shards of an object store, kept on the disk of the machine that reads them, up to a number of bytes."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, BinaryIO, Self

from filelock import FileLock
from pydantic import field_validator

from aerofuse.checkpointing.budget import format_bytes, parse_bytes
from aerofuse.common.params import AS_PATH, Section, load_section
from aerofuse.data.object_store import open_store, refusals

_LOCK = "lock"


class ShardCacheParams(Section):
    """Where each machine keeps shards of an object store, and how many bytes of them. Results do not depend on it."""

    folder: Annotated[str, AS_PATH]
    size: str

    @field_validator("size")
    @classmethod
    def _size_is_one(cls, value: str) -> str:
        parse_bytes(value)
        return value


@dataclass(frozen=True)
class ShardCache:
    """The shards in a folder, which all processes of a machine share; those read longest ago make room for others."""

    folder: Path
    num_bytes: int

    @classmethod
    def of_this_machine(cls) -> Self:
        """Return what params.yaml says, below the main repository also in a temporary experiment."""
        params = load_section(ShardCacheParams, "shard_cache")
        return cls(Path(os.environ.get("DVC_ROOT", ".")) / params.folder, parse_bytes(params.size))

    def check_room(self, num_bytes: int) -> None:
        """Raise `ValueError` where a shard of that size has no room."""
        if num_bytes > self.num_bytes:
            raise ValueError(
                f"shard_cache.size is {format_bytes(self.num_bytes)}, and a shard has {format_bytes(num_bytes)}; "
                "set it to at least that, better to several shards for each process that loads photos"
            )

    def open(self, url: str, num_bytes: int, sha256: str) -> BinaryIO:
        """Open a shard that is here, or fetch it first. It can be read until it is closed, whatever makes room.

        Raises `FileNotFoundError` where the store has none, `ValueError` where it has another content, and
        `ConnectionError` where it refuses.
        """
        path = self.folder / url.rpartition("/")[2]
        try:
            file: BinaryIO = path.open("rb")
        except FileNotFoundError:
            file = self._fetch(url, num_bytes, sha256, path)
        os.utime(file.fileno())  # it was read now
        return file

    def _fetch(self, url: str, num_bytes: int, sha256: str, path: Path) -> BinaryIO:
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / _LOCK):  # one process fetches at a time, so that the size is never exceeded
            with suppress(FileNotFoundError):
                return path.open("rb")  # another process has fetched it meanwhile
            self._make_room(num_bytes)
            partial = path.with_suffix(".partial")
            with refusals(url):
                store, place = open_store(url)
                try:
                    store.get_file(place, str(partial))
                except FileNotFoundError:
                    raise FileNotFoundError(f"{url} is missing; `dvc repro --force prepare` writes it again") from None
            with partial.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                    raise ValueError(f"{url} is not what was written; `dvc repro --force prepare` writes it again")
            partial.replace(path)
            return path.open("rb")

    def _make_room(self, num_bytes: int) -> None:
        """Remove what was read longest ago, and what an interrupted process has left."""
        for left in self.folder.glob("*.partial"):
            left.unlink()
        kept = sorted((path.stat().st_mtime_ns, path.stat().st_size, path) for path in self.folder.glob("*.tar"))
        free_bytes = self.num_bytes - sum(size for _, size, _ in kept)
        for _, size, path in kept:
            if free_bytes >= num_bytes:
                return
            path.unlink()
            free_bytes += size
