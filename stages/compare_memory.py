"""All families of the benchmark in one table, with pictures, and the goals."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

from aerofuse.common.files import read_json, write_json
from stages import run
from tools.benchmarks.goals import check_goals
from tools.benchmarks.page import write_page
from tools.benchmarks.results import QUICK_FOLDER, Planning, Results
from tools.benchmarks.rows import PROMISED


def compare_memory() -> None:
    families = [Results.load(Path("reports/benchmark_memory") / family / "table.csv") for family in PROMISED]
    planning = Planning(**read_json(Path("metrics/benchmark_planning.json"))["benchmark_planning"])
    results = dataclasses.replace(functools.reduce(Results.joined, families), planning=planning)
    path = results.path(QUICK_FOLDER)
    results.save(path)
    write_page(path)
    status = [goal.status for goal in check_goals(results)]
    counts = {"goals_reached": status.count("pass"), "goals_missed": status.count("fail")}
    write_json(Path("metrics/compare_memory.json"), {"compare_memory": counts})


if __name__ == "__main__":
    run(compare_memory)
