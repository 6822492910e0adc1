"""The journal of a run: what it has logged and MLflow has not taken yet, in `<root>/.resume/mlflow/<run key>/`.

`journal.jsonl` holds the run on its first line and one entry on every other line; `artifacts/` holds copies of files.
Logging appends a line. Sending replaces the file by one without the entries that MLflow has taken; an entry that it
refuses stays, with the reason. A crash between MLflow's answer and the new file sends one batch twice, which changes
nothing. A journal of an earlier version is sent again from its start. All that reads or writes one raises `OSError`.

MLflow 3.17's own queue (`mlflow.config.enable_async_logging`) does not keep this promise: it is in memory, drops a
batch that fails, and no run can start without the server.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import threading
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict

from aerofuse.common.files import write_atomically
from aerofuse.tracking.run_request import RunRequest

logger = logging.getLogger(__name__)

MAX_PARAMS, MAX_POINTS = 100, 1000  # what MLflow takes in one call

Point = tuple[str, float, int, int]  # of a metric: name, value, milliseconds since 1970, step


class Entry(BaseModel):
    """One thing that was logged; its kind says which fields it has."""

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="constants")
    kind: Literal["params", "metrics", "artifact", "end"]
    values: dict[str, str] = {}  # params: at most `MAX_PARAMS`
    points: list[Point] = []  # metrics: at most `MAX_POINTS`
    path: str = ""  # artifact: a file or folder; in a journal its copy, relative to the journal's folder
    status: str = ""  # end: FINISHED, FAILED or KILLED
    time_ms: int = 0  # end: milliseconds since 1970
    reason: str | None = None  # why MLflow refused the entry


def read_journals(root: Path) -> list[tuple[Path, RunRequest, list[Entry]]]:
    """Return the folder, the run and the entries of all journals of a repository, oldest first.

    A journal may belong to another process. One that cannot be read is left out with a warning.
    """
    found = []
    for path in sorted((root / ".resume" / "mlflow").glob("*/journal.jsonl")):
        try:
            found.append((path.parent, *read_journal(path.parent)))
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            logger.warning("%s is left as it is; remove it to give it up: %s", path.parent, reason)
    return found


def read_journal(folder: Path) -> tuple[RunRequest, list[Entry]]:
    """Return a run and its entries, refused ones first. Raises `ValueError` for a run of another version."""
    first, *lines = (folder / "journal.jsonl").read_bytes().split(b"\n")
    run = RunRequest.model_validate_json(first)
    entries = []
    for line in filter(None, lines):
        try:
            entries.append(Entry.model_validate_json(line))
        except ValueError:
            logger.warning("%s: a line that cannot be read is left out: %.80s", folder, line.decode(errors="replace"))
    ended = run.ended or any(entry.kind == "end" for entry in entries)
    return run.model_copy(update={"ended": ended}), entries


def is_held(folder: Path) -> bool:
    """Return whether a process logs to a journal, or sends it."""
    try:
        with FileLock(folder / "lock", timeout=0):
            return False
    except Timeout:
        return True


class Journal:
    """A journal held by this process. One thread may send it while others log."""

    def __init__(self, folder: Path, run: RunRequest | None = None) -> None:
        """Start the journal of `run`, or hold the one that a process has left. Raises `Timeout` where another holds it.

        A run whose end was not logged was killed: it ends as KILLED at the time when its journal last changed.
        """
        self.folder = folder
        self._next = 0  # of the entries, the one to send next; those before it were refused
        self._changing = threading.Lock()
        # The thread that trains takes the lock, and the one that sends lets go of it.
        self._lock = FileLock(folder / "lock", timeout=0, thread_local=False)
        self._lock.acquire()
        self.run, self.entries = (run, []) if run else read_journal(folder)
        if run is None and not self.run.ended:
            changed_ms = (folder / "journal.jsonl").stat().st_mtime_ns // 1_000_000
            self.entries.append(Entry(kind="end", status="KILLED", time_ms=changed_ms))
            self.run = self.run.model_copy(update={"ended": True})
        self._write()

    def append(self, entry: Entry) -> None:
        """Keep `entry`, and a copy of an artifact."""
        with self._changing:
            if entry.kind == "artifact":
                source, place = Path(entry.path), Path("artifacts", secrets.token_hex(4))
                (self.folder / place).mkdir(parents=True)
                (shutil.copytree if source.is_dir() else shutil.copy2)(source, self.folder / place / source.name)
                entry = Entry(kind="artifact", path=(place / source.name).as_posix())
            with (self.folder / "journal.jsonl").open("ab") as file:
                # The newline comes first: half a line, where the disk was full for a moment, spoils no other.
                file.write(b"\n" + _line(entry))
                file.flush()
                os.fsync(file.fileno())
            self.entries.append(entry)
            self.run = self.run.model_copy(update={"ended": self.run.ended or entry.kind == "end"})

    def next_batch(self, max_points: int) -> list[Entry]:
        """Return the oldest entries not tried yet: metrics of at most `max_points` points together, or one entry."""
        batch: list[Entry] = []
        for entry in self.entries[self._next :]:
            max_points -= len(entry.points) or MAX_POINTS
            if batch and max_points < 0:
                break
            batch.append(entry)
        return batch

    def settle(self, count: int, refused: str | None = None) -> None:
        """Forget the next `count` entries, which MLflow has taken, or keep them with the reason why it refuses them."""
        with self._changing:
            done = slice(self._next, self._next + count)
            self.entries[done] = [e.model_copy(update={"reason": refused}) for e in self.entries[done] if refused]
            self._next += count if refused else 0
            self._write()

    def close(self) -> None:
        """Let go of the journal, and remove it where MLflow has everything."""
        if not self.entries:
            shutil.rmtree(self.folder)
        self._lock.release()

    def _write(self) -> None:
        lines = [_line(self.run), *map(_line, self.entries)]
        write_atomically(self.folder / "journal.jsonl", b"\n".join(lines))


def _line(record: RunRequest | Entry) -> bytes:
    return record.model_dump_json(exclude_defaults=True).encode()
