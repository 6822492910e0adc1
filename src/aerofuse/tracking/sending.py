"""Sends journals to MLflow, in the order in which their entries were logged."""

from __future__ import annotations

import logging
import threading
from contextlib import closing
from pathlib import Path

from filelock import Timeout

from aerofuse.tracking.addresses import hide_password
from aerofuse.tracking.journal import MAX_POINTS, Entry, Journal, read_journals
from aerofuse.tracking.store import AwayError, RefusedError, RunIds, Store

logger = logging.getLogger(__name__)

RETRY_S = 10.0  # between two attempts to reach a store that is away
HELD = "being written by a training"
_AWAY = (
    "MLflow at %s: %s. Training goes on; what it logs is kept in %s, and sent when MLflow takes it, by the next run, "
    "or by `aerofuse mlflow send`"
)


class Sender(threading.Thread):
    """Sends what older runs have left, then the run of this process while it is logged."""

    def __init__(self, journal: Journal, uri: str, root: Path) -> None:
        super().__init__(name="MLflow", daemon=True)  # a server that hangs must not keep the process from ending
        self._journal, self._uri, self._root = journal, uri, root
        self.news = threading.Event()  # set it when there is something to send
        self._closing = threading.Event()
        self.in_trouble = False

    def finish(self, timeout_s: float) -> None:
        """Send the rest, with one attempt if MLflow is away, and wait for it."""
        self._closing.set()
        self.news.set()
        self.join(timeout_s)

    def run(self) -> None:
        """Send until `finish` is called."""
        store, ids, older_sent, last = Store(self._uri, self._root), None, False, False
        while not last:
            last = self._closing.is_set()
            self.news.clear()
            try:
                if not older_sent:
                    send_older(self._root, self._uri, store)
                    older_sent = True
                ids = ids or store.find(self._journal.run, running=True)
                _send_entries(self._journal, ids, store)
            except (AwayError, RefusedError, OSError) as error:
                level = logging.DEBUG if self.in_trouble else logging.WARNING
                logger.log(level, _AWAY, self._journal.run.uri, error, self._journal.folder)
                self.in_trouble = True
                self._closing.wait(RETRY_S)
            else:
                if self.in_trouble:
                    logger.info("MLflow answers again, and has what was kept")
                self.in_trouble = False
                if not last:
                    self.news.wait()
        try:
            self._journal.close()
        except OSError as error:
            logger.warning("MLflow has this run, but its journal stays: %s", error)


def send_older(root: Path, uri: str, store: Store) -> None:
    """Send what earlier runs have left for the store at `uri`. Raises `AwayError`."""
    for folder, run, _ in read_journals(root):
        left = send_journal(folder, store) if run.uri == hide_password(uri) else HELD
        if left is None:
            logger.info("MLflow has what %s had left", run.key)
        elif left != HELD:
            logger.warning("MLflow: what %s has left stays: %s", run.key, left)


def send_journal(folder: Path, store: Store) -> str | None:
    """Send all that a run has left, what was refused too; return why something is left. Raises `AwayError`."""
    try:
        with closing(Journal(folder)) as journal:
            _send_entries(journal, store.find(journal.run, running=False), store)
    except Timeout:
        return HELD
    except (RefusedError, OSError) as error:
        return str(error)
    return f"{len(journal.entries)} refused, {journal.entries[-1].reason}" if journal.entries else None


def _send_entries(journal: Journal, ids: RunIds, store: Store) -> None:
    max_points = MAX_POINTS
    while batch := journal.next_batch(max_points):
        entry, *others = batch
        if others:  # all are metrics
            entry = Entry(kind="metrics", points=[point for each in batch for point in each.points])
        try:
            store.send(ids, entry, journal.folder)
        except RefusedError as error:
            if others:
                max_points = 1  # one by one, until the one at fault is found
                continue
            max_points = MAX_POINTS
            if all(each.reason is None for each in journal.entries):
                logger.warning("MLflow does not take what %s has logged, which is kept: %s", journal.run.key, error)
            journal.settle(1, refused=str(error))
        else:
            journal.settle(len(batch))
