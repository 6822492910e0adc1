"""Keeps the numbers in README.md those that the pipeline wrote: `make readme`.

A block of README.md between `<!-- NAME -->` and `<!-- /NAME -->` is replaced by what the pipeline wrote.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from aerofuse.reporting.benchmark_tables import checkpointing_table, exactness_table, newest_benchmark, planned_table

REPORTS = Path("reports")


def replace_blocks(text: str, blocks: Mapping[str, str]) -> str:
    """`text` with the content of every named block replaced. Raises `ValueError` for a block that is not there."""
    for name, content in blocks.items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        if len(pattern.findall(text)) != 1:
            raise ValueError(f"there must be one block <!-- {name} --> ... <!-- /{name} -->")
        text = pattern.sub(lambda found, content=content: f"{found[1]}{content.strip()}\n{found[2]}", text)  # type: ignore[misc]
    return text


def section(page: str, heading: str) -> str:
    """What stands under a `## heading` of a Markdown page. Raises `ValueError` where there is none."""
    found = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", page, re.DOTALL | re.MULTILINE)
    if found is None:
        raise ValueError(f"no section {heading!r}")
    return found[1].strip()


def page_blocks() -> dict[str, dict[str, str]]:
    """The blocks of each page, from those reports in the working folder that there are.

    The studies over several experiments take long and are run less often than the pipeline.
    """
    comparison = (REPORTS / "comparison.md").read_text(encoding="utf-8")
    blocks = {
        "README.md": {"models": section(comparison, "Models"), "gates": section(comparison, "Gates")},
        "docs/weights.md": {},
    }
    benchmark = newest_benchmark(REPORTS / "benchmarks")
    if benchmark is not None:
        blocks["docs/checkpointing.md"] = {
            "checkpointing": checkpointing_table(benchmark),
            "exactness": exactness_table(benchmark),
        }
        blocks["docs/planner.md"] = {"planned": planned_table(benchmark)}
    for page, name in (("README.md", "seeds"), ("docs/weights.md", "initialisation")):
        report = REPORTS / f"{name}.md"
        if report.is_file():
            blocks[page][name] = report.read_text(encoding="utf-8")
    return blocks


def main() -> None:
    """Rewrite the blocks of README.md, with the pipeline's graph as DVC draws it, and of the pages in docs."""
    graph = subprocess.run(["dvc", "dag", "--mermaid"], check=True, capture_output=True, text=True).stdout
    pages = page_blocks()
    pages["README.md"]["graph"] = f"```mermaid\n{graph.strip()}\n```"
    for name, blocks in pages.items():
        page = Path(name)
        page.write_text(replace_blocks(page.read_text(encoding="utf-8"), blocks), encoding="utf-8")


if __name__ == "__main__":
    main()
