"""What a run has logged and MLflow has not taken yet: the folder `<root>/.resume/mlflow/<run key>/`.

`journal.jsonl` is only ever appended to: the run on its first line, then one entry a line. `sent` says how far
MLflow has taken it, `refused.jsonl` keeps what MLflow does not take, `artifacts/` holds copies of files. `<run
key>.lock`, beside the folder, is held by the process that writes and sends.

After kill -9 the last line may be half written: it does not count. A crash between an answer of MLflow's and `sent`
sends one batch twice, which MLflow takes: equal parameters and equal points are stored once.
"""

from __future__ import annotations

import json
import logging
import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from aerofuse.tracking.entries import MAX_POINTS, Artifact, End, Entry, Metrics, from_record, to_record
from aerofuse.tracking.run_request import RunRequest

logger = logging.getLogger(__name__)


class SpoolError(Exception):
    """The folder cannot be read or written: the disk is full, or may not be written to."""


@contextmanager
def _own_errors(folder: Path) -> Iterator[None]:
    # An OSError of the disk must not look like one of the network.
    try:
        yield
    except OSError as error:
        raise SpoolError(f"{folder}: {error}") from error


class Waiting(NamedTuple):
    """An entry that waits, and where the journal goes on after it."""

    entry: Entry
    end: int


class Refused(NamedTuple):
    """An entry that MLflow does not take, and why."""

    entry: Entry
    reason: str


@dataclass(frozen=True)
class Contents:
    """What a spool holds."""

    waiting: int  # lines of the journal
    artifacts: int  # among those and the refused
    refused: list[Refused]


def find_spools(root: Path) -> list[Path]:
    """The spools of a repository, oldest first."""
    return sorted(path.parent for path in _folder(root).glob("*/journal.jsonl"))


def read_run(folder: Path) -> RunRequest | None:
    """The run whose spool `folder` is; `None` where that is not written, or nothing that this version can read."""
    line = _read_first_line(folder)
    if line is None:
        return None
    try:
        return RunRequest.from_record(json.loads(line))
    except ValueError as error:
        logger.warning("%s is left as it is: its first line cannot be read: %s", folder, error)
        return None


def read_contents(folder: Path) -> Contents:
    """What is in the spool `folder`, which may belong to another process."""
    with _own_errors(folder):
        waiting = [entry for entry, _ in _read_journal(folder, _read_sent(folder))]
        refused = _read_refused(folder)
    artifacts = sum(isinstance(entry, Artifact) for entry in [*waiting, *(entry for entry, _ in refused)])
    return Contents(len(waiting), artifacts, refused)


def is_held(folder: Path) -> bool:
    """Whether a process writes to the spool `folder`, or sends it."""
    lock = _lock(folder)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    _drop(lock)
    return False


class Spool:
    """One spool, held by this process. All that reads or writes it raises `SpoolError`.

    One thread may send it while others append to it.
    """

    def __init__(self, folder: Path, run: RunRequest, lock: FileLock) -> None:
        self.folder = folder
        self.run = run
        self._lock = lock
        self._sent = _read_sent(folder)
        self._copies = 0
        self._torn = False  # the journal ends in half a line
        self._appending = threading.Lock()

    @classmethod
    def create(cls, root: Path, run: RunRequest) -> Spool:
        """A new spool for a run of this process."""
        folder = _folder(root) / run.key
        with _own_errors(folder):
            folder.mkdir(parents=True)
            lock = _lock(folder)
            lock.acquire(timeout=0)
            spool = cls(folder, run, lock)
            spool._append_line(run.to_record())
            return spool

    @classmethod
    def take(cls, folder: Path) -> Spool | None:
        """The spool of a process that is no more; `None` while another process holds it, or has just sent it.

        Where nothing says how the run ended, its process was killed, and the spool says so now.
        """
        with _own_errors(folder):
            lock = _lock(folder)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                return None
            run = read_run(folder)
            if run is None:
                if _read_first_line(folder) is None:  # sent by now, or killed before it could write a line
                    shutil.rmtree(folder, ignore_errors=True)
                _drop(lock)
                return None
            spool = cls(folder, run, lock)
            if not any(isinstance(entry, End) for entry, _ in _read_journal(folder, 0)):
                journal = folder / "journal.jsonl"
                killed_ms = journal.stat().st_mtime_ns // 1_000_000
                spool._torn = not journal.read_bytes().endswith(b"\n")
                spool.append(End("KILLED", killed_ms))
            return spool

    def append(self, entry: Entry) -> None:
        """Keep `entry`, and a copy of an artifact."""
        with _own_errors(self.folder), self._appending:
            self._append_line(to_record(self._with_copy(entry) if isinstance(entry, Artifact) else entry))

    def next_batch(self) -> list[Waiting]:
        """The oldest entries that were not sent: points of curves as many as MLflow takes at once, else one."""
        batch: list[Waiting] = []
        points = 0
        with _own_errors(self.folder):
            for waiting in _read_journal(self.folder, self._sent):
                points += len(waiting.entry.points) if isinstance(waiting.entry, Metrics) else MAX_POINTS
                if batch and points > MAX_POINTS:
                    break
                batch.append(waiting)
        return batch

    def mark_sent(self, end: int) -> None:
        """MLflow has taken, or refused, the journal up to `end`."""
        self._sent = end
        with _own_errors(self.folder):
            _replace(self.folder / "sent", str(end))

    def refused(self) -> list[Refused]:
        """What MLflow does not take."""
        with _own_errors(self.folder):
            return _read_refused(self.folder)

    def replace_refused(self, refused: Sequence[Refused]) -> None:
        """These are all that MLflow does not take."""
        lines = [json.dumps({**to_record(entry), "reason": reason}) + "\n" for entry, reason in refused]
        with _own_errors(self.folder):
            _replace(self.folder / "refused.jsonl", "".join(lines))

    def located(self, entry: Entry) -> Entry:
        """`entry` as it is sent: an artifact's path in a journal is relative to the spool."""
        return Artifact(str(self.folder / entry.path)) if isinstance(entry, Artifact) else entry

    def close(self) -> bool:
        """Let go of it; whether MLflow has taken everything, so that the folder is gone."""
        try:
            done = not self.next_batch() and not self.refused()
            if done:
                with _own_errors(self.folder):
                    shutil.rmtree(self.folder)
            return done
        finally:
            _drop(self._lock)

    def _append_line(self, record: dict[str, Any]) -> None:
        # Half a line, where the disk was full for a moment, must not spoil the next one.
        start = "\n" if self._torn else ""
        self._torn = True
        with (self.folder / "journal.jsonl").open("a", encoding="utf-8") as journal:  # closing it flushes it
            journal.write(f"{start}{json.dumps(record)}\n")
        self._torn = False

    def _with_copy(self, artifact: Artifact) -> Artifact:
        self._copies += 1
        source = Path(artifact.path)
        copy = self.folder / "artifacts" / f"{self._copies:04d}" / source.name
        copy.parent.mkdir(parents=True)
        if source.is_dir():
            shutil.copytree(source, copy)
        else:
            shutil.copy2(source, copy)
        return Artifact(copy.relative_to(self.folder).as_posix())


def _folder(root: Path) -> Path:
    return root / ".resume" / "mlflow"


def _lock(folder: Path) -> FileLock:
    # Taken by the thread that trains, and let go by the one that sends.
    return FileLock(folder.with_name(f"{folder.name}.lock"), thread_local=False)


def _drop(lock: FileLock) -> None:
    """Remove the lock's file while it is held, so that none is left behind; then let go."""
    Path(lock.lock_file).unlink(missing_ok=True)
    lock.release()


def _replace(path: Path, text: str) -> None:
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def _read_first_line(folder: Path) -> bytes | None:
    try:
        with (folder / "journal.jsonl").open("rb") as journal:
            line = journal.readline()
    except FileNotFoundError:
        return None
    return line if line.endswith(b"\n") else None


def _read_sent(folder: Path) -> int:
    try:
        return int((folder / "sent").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):  # never sent, or damaged: MLflow takes the same twice
        return 0


def _read_journal(folder: Path, start: int) -> Iterator[Waiting]:
    """The entries from the place `start` on."""
    with (folder / "journal.jsonl").open("rb") as journal:
        if start == 0:
            journal.readline()  # the run
        else:
            journal.seek(start)
        while (line := journal.readline()).endswith(b"\n"):
            if (entry := _parse(line, folder)) is not None:
                yield Waiting(entry, journal.tell())


def _read_refused(folder: Path) -> list[Refused]:
    path = folder / "refused.jsonl"
    lines = path.read_bytes().splitlines() if path.is_file() else []
    return [Refused(from_record(record), record["reason"]) for record in map(json.loads, lines)]


def _parse(line: bytes, folder: Path) -> Entry | None:
    """The entry on a line; `None`, and a warning, where the line is damaged."""
    try:
        return from_record(json.loads(line))
    except ValueError as error:
        logger.warning("%s: a line that cannot be read is left out: %s", folder, error)
        return None
