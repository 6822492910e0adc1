"""Taking photos in on a Ray cluster: a task for each shard, on whichever node has a core free.

A node reads photos from a folder that all nodes share, or from an object store, and gives back the content of a shard.
The machine that runs `prepare` writes it, so the files are those that this machine would make alone. The tasks of a
node that dies are run again on others.
"""

from __future__ import annotations

import logging
import os
import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import chdir, contextmanager, nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
from filelock import FileLock

import aerofuse
from aerofuse.ingest.intake import IntakeSettings, PhotoFile, ShardWork, shard_content, shard_name, write_shard

logger = logging.getLogger(__name__)

_TASKS_PER_CORE = 2  # one at work, and one that waits for it
_ANSWER_S = 5.0
_REMEDY = "or set data.engine to local"


def take_in_on_ray(work: Sequence[ShardWork], settings: IntakeSettings) -> Iterator[int]:
    """Write every shard, read on the cluster that `RAY_ADDRESS` names, else on one of this machine's cores.

    Yields the number of photos of each shard when it is written. Raises `ConnectionError` where the cluster or an
    object store cannot be used, `FileNotFoundError` where a node does not see the photos.
    """
    waiting = iter(work)
    running: dict[Any, ShardWork] = {}
    with _cluster() as ray:
        read = ray.remote(num_cpus=1)(_read_shard)
        while True:
            cores = int(ray.cluster_resources().get("CPU", 0))  # nodes may come and go
            for files, path in islice(waiting, max(1, _TASKS_PER_CORE * cores - len(running))):
                running[read.remote(files, settings, path.stem, Path.cwd())] = files, path
            if not running:
                return
            (done, *_), _ = ray.wait(list(running))
            files, path = running.pop(done)
            write_shard(path, _result(ray, done))
            yield len(files)


def _read_shard(files: Sequence[PhotoFile], settings: IntakeSettings, name: str, folder: Path) -> pa.Buffer:
    """Read a shard on a node, from the folder that `prepare` runs in, where the node has it."""
    lock = FileLock(Path(tempfile.gettempdir()) / f"aerofuse-{os.getuid()}-large-photo.lock")
    with chdir(folder) if folder.is_dir() else nullcontext():
        if shard_name(files, settings) != name:  # which covers the size and the time of each file
            raise FileNotFoundError(
                f"the node {socket.gethostname()} does not see the photos as the machine that runs prepare does, such "
                f"as {files[0].path}; share the folder with every node, under one path, or read them from s3://"
            )
        return shard_content(files, settings, lock)


def _result(ray: Any, done: Any) -> pa.Buffer:
    try:
        return ray.get(done)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, FileNotFoundError | ConnectionError):
            raise error.cause from None
        raise
    except ray.exceptions.RayError as error:
        raise ConnectionError(
            f"the Ray cluster gave up a part of the photos ({_line(error)}); the same command goes on with those that "
            f"are missing; look after its nodes, {_REMEDY}"
        ) from None


@contextmanager
def _cluster() -> Iterator[Any]:
    """Connect to the cluster, with the code that runs here. Raises `ConnectionError` where that cannot be."""
    try:
        import ray
    except ImportError:
        raise ConnectionError(
            f"data.engine is ray, and Ray is not installed: pip install 'aerofuse[ray]', {_REMEDY}"
        ) from None
    address = os.environ.get("RAY_ADDRESS") or "local"
    _check_answer(address)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    package = str(Path(aerofuse.__file__).parent)
    try:
        ray.init(
            address=address,
            runtime_env={"py_modules": [package], "excludes": ["__pycache__"]},
            logging_level=logging.ERROR,
            log_to_driver=False,
        )
    except Exception as error:  # Ray raises many
        ray.shutdown()  # it may be connected in part
        raise ConnectionError(
            f"RAY_ADDRESS is {address!r}, and this cluster cannot be used ({_line(error)}); its nodes need the Python "
            f"and the Ray of this machine, which is one of them: mend it, {_REMEDY}"
        ) from None
    try:
        logger.info("photos are read on %d nodes, %d cores", len(ray.nodes()), ray.cluster_resources().get("CPU", 0))
        yield ray
    finally:
        ray.shutdown()


def _check_answer(address: str) -> None:
    """Raise `ConnectionError` where nothing listens at `host:port`; Ray itself would try for a minute."""
    host, _, port = address.rpartition(":")
    if not port.isdecimal():
        return
    try:
        socket.create_connection((host, int(port)), _ANSWER_S).close()
    except OSError as error:
        raise ConnectionError(
            f"RAY_ADDRESS is {address!r}, and no cluster answers there ({error}); start one there, {_REMEDY}"
        ) from None


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
