"""Photos of a folder in an object store, and what `prepare` makes of either."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import fsspec
import pytest
from fsspec.asyn import get_loop, sync

from aerofuse.common.params import load_section
from aerofuse.ingest.params import DataParams
from aerofuse.ingest.prepare import prepare_photos
from aerofuse.ingest.sources import create_source
from tests.imports import ROOT
from tests.ingest.photo_folder import PhotoFolder
from tests.s3_server import S3Server


def put(folder: PhotoFolder, root: str) -> str:
    """Copy the files to an object store."""
    store, place = fsspec.url_to_fs(root)
    for path in folder.root.rglob("*"):
        if path.is_file():
            store.pipe_file(f"{place}/{path.relative_to(folder.root).as_posix()}", path.read_bytes())
    return root


def prepare_from(root: str, folder: PhotoFolder, out: Path, engine: str = "local") -> dict[str, bytes]:
    """Prepare the photos at `root`; return what was written, and what was left out with its reason."""
    changes = {"source": "table", "root": root, "labels": str(folder.labels), "engine": engine, "max_bad_fraction": 0.5}
    params = DataParams.model_validate(load_section(DataParams, "data", ROOT / "params.yaml").model_dump() | changes)
    source = create_source(params, 64, out / "work")
    prepare_photos(source, params.split, 64, out / "prepared", merge_small_types=True)
    written = {path.name: path.read_bytes() for path in (out / "prepared").iterdir()}
    return written | {"left out": repr((source.dropped.to_dict(), source.unlisted)).encode()}


def use(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Say where the server is and who reads, as a user does."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", server.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", server.secret_key)
    fsspec.filesystem("s3").clear_instance_cache()


def failures_in_fork(read: Callable[[], object]) -> list[str]:
    """What fails unseen in a forked process that reads from a store, and frees what it has of its parent."""

    def run(results: Connection) -> None:
        read()
        loop, failures = get_loop(), []
        loop.set_exception_handler(lambda _, context: failures.append(str(context.get("exception"))))

        async def free() -> None:
            gc.collect()  # in the thread that talks to the store, as happens now and then
            await asyncio.sleep(0.1)
            gc.collect()

        sync(loop, free)
        results.send(failures)

    gc.collect()
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=run, args=(theirs,))
    process.start()
    process.join(timeout=60)
    assert process.exitcode == 0
    found: list[str] = ours.recv()
    return found
