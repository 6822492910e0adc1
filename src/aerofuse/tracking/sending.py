"""Bringing to MLflow what waits in spools, in the order in which it was logged."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from aerofuse.tracking.addresses import hide_password, summary
from aerofuse.tracking.entries import Entry, Metrics
from aerofuse.tracking.spool import Refused, Spool, SpoolError, Waiting, find_spools, read_run
from aerofuse.tracking.store import RefusedError, RunIds, Store

logger = logging.getLogger(__name__)

RETRY_S = 10.0  # between two attempts to reach a store that is away


class Sender(threading.Thread):
    """Sends what older runs have left, then the run of this process while it is logged."""

    def __init__(self, spool: Spool, uri: str, root: Path) -> None:
        # A daemon, for a server that hangs must not keep the process from ending.
        super().__init__(name="MLflow", daemon=True)
        self._spool = spool
        self._uri = uri
        self._root = root
        self._store = Store(uri, root)
        self._ids: RunIds | None = None
        self._older_sent = False
        self._news = threading.Event()
        self._closing = threading.Event()
        self.in_trouble = False
        self.done = False  # MLflow has everything

    def wake(self) -> None:
        """There is something to send."""
        self._news.set()

    def finish(self, timeout_s: float) -> None:
        """Send the rest, with one attempt if MLflow is away, and wait for it."""
        self._closing.set()
        self._news.set()
        self.join(timeout_s)

    def run(self) -> None:
        last = False
        while not last:
            last = self._closing.is_set()
            self._news.clear()
            try:
                self._send()
            # Everything, for MLflow hands through whatever its parts raise.
            except Exception as error:
                self._report(error)
                self._closing.wait(RETRY_S)
            else:
                if self.in_trouble:
                    logger.info("MLflow answers again, and has what was kept")
                self.in_trouble = False
                if not last:
                    self._news.wait()
        try:
            self.done = self._spool.close()
        except SpoolError as error:
            logger.warning("%s", error)

    def _send(self) -> None:
        if not self._older_sent:
            send_older(self._root, self._uri, self._store)
            self._older_sent = True
        if self._ids is None:
            self._ids = self._store.find(self._spool.run, running=True)
        send_waiting(self._spool, self._ids, self._store)

    def _report(self, error: Exception) -> None:
        logger.debug("MLflow is away", exc_info=error)
        if not self.in_trouble:
            logger.warning(
                "MLflow at %s: %s. Training goes on; what it logs is kept in %s, and sent when MLflow takes it, by the "
                "next run, or by `aerofuse mlflow send`",
                self._spool.run.uri,
                summary(error),
                self._spool.folder,
            )
        self.in_trouble = True


def send_older(root: Path, uri: str, store: Store) -> None:
    """Send what runs before this one have left for the store at `uri`.

    Raises whatever MLflow raises where it is out of reach.
    """
    for folder in find_spools(root):
        run = read_run(folder)
        if run is not None and run.uri != hide_password(uri):
            continue
        try:
            spool = Spool.take(folder)
            if spool is not None and send_spool(spool, store):
                logger.info("MLflow has what %s had left", spool.run.key)
        except (RefusedError, SpoolError) as error:
            logger.warning("MLflow: what %s has left stays: %s", folder.name, summary(error))


def send_spool(spool: Spool, store: Store) -> bool:
    """Send all that a run has left, what was refused too, and close the spool; whether MLflow has everything.

    Raises `RefusedError` where there can be no such run, `SpoolError`, and whatever MLflow raises where it is out of
    reach. What was taken until then is not sent again.
    """
    try:
        ids = store.find(spool.run, running=False)
        send_waiting(spool, ids, store)
        _send_refused(spool, ids, store)
    finally:
        done = spool.close()
    return done


def send_waiting(spool: Spool, ids: RunIds, store: Store) -> None:
    """Send what waits in `spool`, and put aside what MLflow does not take. Raises as `send_spool`."""
    while batch := spool.next_batch():
        _send_batch(batch, spool, ids, store)


def _send_batch(batch: Sequence[Waiting], spool: Spool, ids: RunIds, store: Store) -> None:
    try:
        store.send(ids, spool.located(_joined([entry for entry, _ in batch])))
    except RefusedError as error:
        if len(batch) > 1:  # it is one of them, and the others shall not suffer
            for waiting in batch:
                _send_batch([waiting], spool, ids, store)
            return
        refused = spool.refused()
        if not refused:
            logger.warning("MLflow does not take what %s has logged, which is kept: %s", spool.run.key, error)
        spool.replace_refused([*refused, Refused(batch[0].entry, str(error))])
    spool.mark_sent(batch[-1].end)


def _joined(entries: Sequence[Entry]) -> Entry:
    """One entry for all: of several, all are points."""
    if len(entries) == 1:
        return entries[0]
    return Metrics([point for entry in entries if isinstance(entry, Metrics) for point in entry.points])


def _send_refused(spool: Spool, ids: RunIds, store: Store) -> None:
    """Try once more, for there may be a remedy by now."""
    untried = deque(spool.refused())
    if not untried:
        return
    still: list[Refused] = []
    try:
        while untried:
            entry, _ = untried[0]
            try:
                store.send(ids, spool.located(entry))
            except RefusedError as error:
                still.append(Refused(entry, str(error)))
            untried.popleft()
    finally:  # some were not tried where MLflow is out of reach
        spool.replace_refused([*still, *untried])
