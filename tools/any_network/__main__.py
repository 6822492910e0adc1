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
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from tools.any_network.findings import TABLE, Finding, Served, append_finding, read_findings
from tools.any_network.networks import NetworkName, all_networks, choose_of_timm
from tools.any_network.times import time_network
from tools.any_network.trial import try_network, words

logger = logging.getLogger(__name__)


def sweep(networks: Sequence[NetworkName], table: Path, *, minutes: float, limit_s: float, times: bool = False) -> None:
    """Try the networks that are not in the table; with `times`, time those that are. It ends when the time is over."""
    known = {(row.library, row.name): row for row in read_findings(table)}
    end = time.monotonic() + 60 * minutes
    for name in networks:
        row = known.get((name.library, name.name))
        if times and row is not None and row.plan_bytes and not row.plan_time:
            find = partial(time_network, row)
        elif not times and row is None:
            find = partial(try_network, name)
        else:
            continue
        if time.monotonic() > end:
            logger.info("the time is over; the same command continues")
            return
        began = time.monotonic()
        found = in_process(find, limit_s)
        if isinstance(found, Finding):
            append_finding(table, replace(found, seconds=round(time.monotonic() - began, 1)))
        elif not times:
            append_finding(table, Finding(name.library, name.name, name.file, Served.NOT_BUILT, found))
        logger.info("%s: %s", name.name, found)


def in_process(find: Callable[[], Finding], limit_s: float) -> Finding | str:
    """Return what is found in a process of its own, or why nothing is."""
    context = multiprocessing.get_context("fork")  # it has all libraries imported
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(theirs, find))
    process.start()
    theirs.close()
    try:
        found: Finding | str = ours.recv() if ours.poll(limit_s) else f"it takes more than {limit_s:g} s"
    except EOFError:
        found = "its process has ended, for want of memory perhaps"
    process.kill()
    process.join()
    return found


def _send(connection: Connection, find: Callable[[], Finding]) -> None:
    try:
        found: Finding | str = find()
    except Exception as error:
        found = words(error)
    connection.send(found)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the sweep, or a part of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", type=Path, default=TABLE)
    parser.add_argument("--part", default="1/1", help="K/N: every N-th network, from the K-th on")
    parser.add_argument("--only", nargs="+", help="names of networks, or a library")
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--limit", type=float, default=300, help="seconds that a network may take")
    parser.add_argument("--times", action="store_true", help="time those in the table that have a switch")
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
    limits = {"minutes": arguments.minutes, "limit_s": arguments.limit}
    sweep(networks[number - 1 :: parts], arguments.table, **limits, times=arguments.times)


if __name__ == "__main__":
    main()
