"""Photos in an object store such as S3, listed and read through fsspec.

Where the store is and who may read it is said as its own tools are told: for S3 by the variables `AWS_*`, or a profile.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from aerofuse.data.image_file import UnreadablePhotoError, suffixes
from aerofuse.data.object_store import open_store, refusals


@dataclass(frozen=True)
class RemoteFile:
    """A file in an object store. `version` tells its content from another's, and is empty where there is no file."""

    url: str
    version: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.url

    def read(self) -> bytes:
        """Return the content.

        Raises `UnreadablePhotoError` where there is none, `ConnectionError` where the store does not give it.
        """
        if not self.version:
            raise UnreadablePhotoError("no such file")
        try:
            with refusals(self.url):
                store, path = open_store(self.url)
                content: bytes = store.cat_file(path)
        except FileNotFoundError:
            raise UnreadablePhotoError("no such file") from None
        if not content:
            raise UnreadablePhotoError("the file is empty")
        return content


PhotoLocation = Path | RemoteFile


def find_remote_photos(root: str) -> dict[str, RemoteFile]:
    """Find the files below `root` that are photos by their suffix, by their names relative to it, sorted.

    Raises `FileNotFoundError` where nothing is there, `ConnectionError` where the store does not answer or refuses.
    """
    with refusals(root):
        store, folder = open_store(root)
        found = store.find(folder, detail=True)
    names = {path[len(folder) :].lstrip("/"): facts for path, facts in found.items()}
    return {
        name: RemoteFile(f"{root}/{name}", (str(facts["size"]), _stamp(facts)))
        for name, facts in sorted(names.items())
        if PurePosixPath(name).suffix.lower() in suffixes()
    }


def _stamp(facts: dict[str, object]) -> str:
    """What changes with the content: S3's hash, or the time of another store."""
    return str(facts.get("ETag") or facts.get("LastModified") or facts.get("mtime") or facts.get("created"))
