"""What a second node of a Ray cluster brings to `prepare`: `python -m tools.benchmarks.preparing_on_ray`.

Photos are made from noise. The stage itself, as the pipeline runs it, prepares them on clusters of one node and of two,
with one core each, which Ray's cluster utility simulates on this machine. In each round both are new, and nothing was
read before. What they write must be, byte for byte, what the stage writes without Ray. Times are of the whole stage:
Python's start, the connection, reading, comparing, splitting, storing and the report.
`reports/benchmarks/` gets a table named by what it ran on. Run it from the root of the repository.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from aerofuse.backbones.weights import file_sha256
from tools.benchmarks.preparing import make_photos, run_prepare, write_params
from tools.benchmarks.results import ON_RAY
from tools.benchmarks.side_by_side import write_table

GOAL = 1.6  # times the photos a second, with two nodes for one
logger = logging.getLogger(__name__)


@contextmanager
def nodes(count: int) -> Iterator[None]:
    """Simulate a cluster of so many nodes with one core each, which `RAY_ADDRESS` names inside of the block."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        for _ in range(count - 1):
            cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        os.environ["RAY_ADDRESS"] = cluster.address
        yield
    finally:
        os.environ.pop("RAY_ADDRESS", None)
        cluster.shutdown()


def measure(folder: Path, count: int, width_px: int, image_size_px: int, rounds: int) -> pd.DataFrame:
    """A row for each run; `same_bytes` says whether it wrote what the stage writes without Ray."""
    labels = make_photos(folder / "photos", count, width_px)
    rows = []

    def run(engine: str, node_count: int, number: int) -> Mapping[str, str]:
        workspace = folder / "workspace"
        shutil.rmtree(workspace, ignore_errors=True)
        workspace.mkdir()
        write_params(workspace, folder / "photos", labels, image_size_px, engine)
        seconds = run_prepare(workspace, engine).seconds
        rows.append({"engine": engine, "nodes": node_count, "round": number, "seconds": seconds})
        return {path.name: file_sha256(path) for path in sorted((workspace / "data/prepared").iterdir())}

    expected = run("local", 1, 1)
    same = [True]
    for number in range(1, rounds + 1):
        for node_count in (1, 2):
            with nodes(node_count):
                same.append(run("ray", node_count, number) == expected)
            logger.info("%s", rows[-1])
    table = pd.DataFrame(rows)
    table["photos"], table["photo_width_px"], table["image_size_px"] = count, width_px, image_size_px
    table["photos_per_second"] = (count / table["seconds"]).round(1)
    table["same_bytes"] = same
    table["cores"] = len(os.sched_getaffinity(0))
    return table


def speedup(table: pd.DataFrame) -> float:
    """How many times the photos a second two nodes prepare, of one's; the median over the rounds."""
    on_ray = table[table["engine"] == "ray"].pivot(index="round", columns="nodes", values="photos_per_second")
    return float((on_ray[2] / on_ray[1]).median())


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the table; end with status 1 where a byte differs or the goal is missed."""
    parser = argparse.ArgumentParser(prog="python -m tools.benchmarks.preparing_on_ray", description=__doc__)
    parser.add_argument("--photos", type=int, default=4000, help="photos (default: 4000)")
    parser.add_argument("--width", type=int, default=2400, metavar="PX", help="of a photo (default: 2400)")
    parser.add_argument("--image-size", type=int, default=224, metavar="PX", help="side in training (default: 224)")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each cluster (default: 3)")
    parser.add_argument("--folder", type=Path, help="where photos and results are kept meanwhile, 2 MB a photo")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        table = measure(Path(folder), options.photos, options.width, options.image_size, options.rounds)
    write_table(table, ON_RAY)
    found = speedup(table)
    logger.info("two nodes prepare %.2f times the photos a second of one; the goal is %.1f", found, GOAL)
    sys.exit(0 if found >= GOAL and table["same_bytes"].all() else 1)


if __name__ == "__main__":
    main()
