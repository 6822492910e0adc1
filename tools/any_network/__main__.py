"""Try gradient checkpointing on any network: `make any-network`, hours on two cores.

A process tries one network, so that a failure or a time limit ends it alone. Every row is written at once, and what is
in the table is not tried again. `--part 2/4` tries every fourth network, from the second on.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from tools.any_network.networks import NetworkName, all_networks, choose_of_timm
from tools.any_network.rows import TABLE, Row, Served, append_row, read_rows
from tools.any_network.trial import try_network

logger = logging.getLogger(__name__)


def sweep(networks: Sequence[NetworkName], table: Path, *, minutes: float, limit_s: float) -> None:
    """Try the networks that are not in the table, until the time is over."""
    done = {(row.library, row.name) for row in read_rows(table)}
    end = time.monotonic() + 60 * minutes
    for name in networks:
        if (name.library, name.name) in done:
            continue
        if time.monotonic() > end:
            logger.info("the time is over; the same command continues")
            return
        row = try_apart(name, limit_s)
        append_row(table, row)
        logger.info("%s %s: %s %s %s", row.library, row.name, row.served, row.reason, row.differs)


def try_apart(name: NetworkName, limit_s: float) -> Row:
    """Return the row of a network that is tried in a process of its own, which ends when it takes too long."""
    context = multiprocessing.get_context("fork")  # it has all libraries imported
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_send_row, args=(theirs, name))
    began = time.monotonic()
    process.start()
    theirs.close()
    try:
        row = ours.recv() if ours.poll(limit_s) else _not_tried(name, f"it takes more than {limit_s:g} s")
    except EOFError:
        row = _not_tried(name, "its process has ended, for want of memory perhaps")
    process.kill()
    process.join()
    return replace(row, seconds=round(time.monotonic() - began, 1))


def _send_row(connection: Connection, name: NetworkName) -> None:
    connection.send(try_network(name))


def _not_tried(name: NetworkName, reason: str) -> Row:
    return Row(name.library, name.name, name.file, Served.NOT_BUILT, reason)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the sweep, or a part of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", type=Path, default=TABLE)
    parser.add_argument("--part", default="1/1", help="K/N: every N-th network, from the K-th on")
    parser.add_argument("--only", nargs="+", help="names of networks, or a library")
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--limit", type=float, default=300, help="seconds that a network may take")
    parser.add_argument("--choose", action="store_true", help="choose anew which networks of timm are tried")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    if arguments.choose:
        choose_of_timm()
        return
    number, parts = map(int, arguments.part.split("/"))
    networks = [
        name
        for name in all_networks()
        if not arguments.only or name.name in arguments.only or name.library in arguments.only
    ]
    sweep(networks[number - 1 :: parts], arguments.table, minutes=arguments.minutes, limit_s=arguments.limit)


if __name__ == "__main__":
    main()
