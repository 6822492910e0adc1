"""The benchmark of gradient checkpointing as a page with pictures: `python -m tools.benchmarks.page`."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from tools.benchmarks.goals import check_goals
from tools.benchmarks.pictures import draw_frontiers, draw_kinds, draw_promises
from tools.benchmarks.results import FOLDER, HYBRID, Results, newest_results
from tools.benchmarks.rows import PROMISED
from tools.benchmarks.tables import checkpointing_table, exactness_table, goals_table, planned_table

_PICTURES = {
    "frontiers": "Memory against time, for each network",
    "promises": "The saving that was promised, and the one that was measured",
    "kinds": "What a step holds at its peak, by kind",
}


def picture_of(path: Path, name: str) -> Path:
    """Return where the picture `name` of the results in `path` is."""
    return path.parent / "pictures" / f"{path.stem}-{name}.png"


def picture_link(path: Path, name: str, page_folder: Path) -> str:
    """Return the picture as Markdown, for a page in `page_folder`."""
    place = Path(os.path.relpath(picture_of(path, name), page_folder))
    return f"![{_PICTURES[name]}]({place.as_posix()})"


def made_with(results: Results) -> str:
    """Return what the numbers are of, in a sentence."""
    settings, machine = results.settings, results.machine
    rounds = f"{settings.rounds} rounds"
    if settings.timing_s:
        rounds = f"at least {rounds} and {settings.timing_s} s"
    batches = sorted({int(batch) for batch in results.table["time_batch"].dropna()})
    return (
        f"{machine.device}, torch {machine.torch}, {machine.date}. Memory: batch {settings.count_batch}, "
        f"{settings.image_size_px} px; times: batch {', '.join(map(str, batches))}, {rounds}."
    )


def write_page(path: Path) -> Path:
    """Draw the pictures of the results in `path`, and write the page beside them; return where it is."""
    results = Results.load(path)
    table = results.table
    draw_frontiers(table, results.curves, picture_of(path, "frontiers"))
    draw_kinds(table, picture_of(path, "kinds"))
    saved = [checkpointing_table(table)]
    if table["family"].isin(PROMISED).any():  # of the hybrid nothing was promised
        draw_promises(table, picture_of(path, "promises"))
        saved.append(picture_link(path, "promises", path.parent))
    parts: Mapping[str, Sequence[str]] = {
        "Goals": [goals_table(check_goals(results))],
        "Saved and paid": saved,
        "Planned": [planned_table(table), picture_link(path, "frontiers", path.parent)],
        "By kind": [picture_link(path, "kinds", path.parent)],
        "Changed bits": [exactness_table(table)],
    }
    sections = ["\n\n".join([f"## {heading}", *content]) for heading, content in parts.items()]
    page = path.with_suffix(".md")
    text = "\n\n".join(["# What gradient checkpointing saves and costs", made_with(results), *sections])
    page.write_text(text + "\n", encoding="utf-8")
    return page


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the pages of some results, by default of the newest of each device."""
    parser = argparse.ArgumentParser(prog="python -m tools.benchmarks.page", description=__doc__)
    parser.add_argument("tables", nargs="*", type=Path, help=f"default: the newest of each device in {FOLDER}")
    for path in parser.parse_args(arguments).tables or (*newest_results(FOLDER), *newest_results(FOLDER, HYBRID)):
        write_page(path)


if __name__ == "__main__":
    main()
