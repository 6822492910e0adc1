"""Write the numbers of the pipeline into README.md and the pages in docs: `make readme`.

A block of README.md between `<!-- NAME -->` and `<!-- /NAME -->` is replaced by what the pipeline wrote.
"""

from __future__ import annotations

import re
import subprocess
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from aerofuse.comparison.times import TrainingTimes
from tools.any_network.findings import TABLE, read_findings
from tools.any_network.page import picture, summary
from tools.benchmarks.compiled import compiled_table
from tools.benchmarks.goals import check_goals
from tools.benchmarks.page import made_with, picture_link
from tools.benchmarks.results import (
    COMPILED,
    COPIES,
    FOLDER,
    HYBRID,
    LOADING,
    MONET,
    ON_RAY,
    PREPARING,
    QUICK_FOLDER,
    SHARDS,
    Results,
    newest_results,
)
from tools.benchmarks.tables import checkpointing_table, exactness_table, goals_table, monet_table, planned_table
from tools.chinese import chinese_headings, chinese_tables
from tools.gpu_tables import gpu_tables
from tools.photo_tables import copies_table, loading_table, nodes_table, preparing_table, shards_table
from tools.saving_table import saving_table

REPORTS = Path("reports")
DOCS = Path("docs")
CHINESE = ".zh-CN.md"


def replace_blocks(text: str, blocks: Mapping[str, str]) -> str:
    """Return `text` with the content of every named block replaced. Raises `ValueError` for a missing block."""
    for name, content in blocks.items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        if len(pattern.findall(text)) != 1:
            raise ValueError(f"there must be one block <!-- {name} --> ... <!-- /{name} -->")
        text = pattern.sub(lambda found, content=content: f"{found[1]}{content.strip()}\n{found[2]}", text)  # type: ignore[misc]
    return text


def section(page: str, heading: str) -> str:
    """Return what stands under a `## heading` of a Markdown page. Raises `ValueError` where there is none."""
    found = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", page, re.DOTALL | re.MULTILINE)
    if found is None:
        raise ValueError(f"no section {heading!r}")
    return found[1].strip()


def page_blocks() -> dict[str, dict[str, str]]:
    """Return the blocks of each page, from those reports in the working folder that there are.

    The studies over several experiments take long and are run less often than the pipeline.
    """
    comparison = (REPORTS / "comparison.md").read_text(encoding="utf-8")
    training_times = sorted((REPORTS / "times").glob("train_*.json"))
    blocks = {
        "README.md": {"models": section(comparison, "Models"), "gates": section(comparison, "Gates")},
        "docs/weights.md": {},
        "docs/photographs.md": {},
        "docs/models.md": {},
        "docs/data.md": photo_blocks(),
        "docs/training.md": {"saving": saving_table({path.stem: TrainingTimes.read(path) for path in training_times})},
    }
    blocks["docs/checkpointing.md"], blocks["docs/planner.md"] = _benchmark_blocks()
    if rows := read_findings(TABLE):
        blocks["docs/checkpointing.md"]["any_network"] = f"{summary(rows)}\n\n{picture(rows)}"
    studies = {
        "seeds": "README.md",
        "initialisation": "docs/weights.md",
        "photographs": "docs/photographs.md",
        "recipe_search": "docs/models.md",
        "chaos": "docs/training.md",
    }
    for name, page in studies.items():
        report = REPORTS / f"{name}.md"
        if report.is_file():
            blocks[page][name] = report.read_text(encoding="utf-8")
    if (chart := REPORTS / "photographs.png").is_file():
        blocks["docs/photographs.md"]["photographs_chart"] = (
            f"![Right types by model and weights](../{chart.as_posix()})"
        )
    blocks[f"README{CHINESE}"] = {name: "\n\n".join(chinese_tables(text)) for name, text in blocks["README.md"].items()}
    for page in [page for page in blocks if page.startswith("docs/")]:
        translation = page.replace(".md", CHINESE)
        if Path(translation).is_file():
            blocks[translation] = {name: chinese_headings(text) for name, text in blocks[page].items()}
    # One is enough there: the last by name, which is a GPU of NVIDIA's where one was measured.
    frontiers = [picture_link(path, "frontiers", Path()) for path in newest_results(FOLDER)[-1:]]
    for page in ("README.md", f"README{CHINESE}"):
        blocks[page]["frontiers"] = "\n\n".join(frontiers)
    return blocks


def photo_blocks() -> dict[str, str]:
    """Return the blocks of the page on photos, one device after the other."""
    tables = {
        LOADING: loading_table,
        PREPARING: preparing_table,
        ON_RAY: nodes_table,
        COPIES: copies_table,
        SHARDS: shards_table,
    }
    measured = {name: [write(path) for path in newest_results(FOLDER, name)] for name, write in tables.items()}
    return {name: "\n\n".join(parts) for name, parts in measured.items() if parts}


def _benchmark_blocks() -> tuple[dict[str, str], dict[str, str]]:
    """Return the blocks of the pages on checkpointing and the planner: of full runs, else of the pipeline's quick run.

    One device after the other; the hybrid, where it was measured, comes with the plans.
    """
    saved: dict[str, list[str]] = defaultdict(list)
    planned: dict[str, list[str]] = defaultdict(list)
    for path in newest_results(FOLDER) or newest_results(QUICK_FOLDER):
        results = Results.load(path)
        source = f"{made_with(results)} From `{path.as_posix()}`."
        saved["checkpointing"] += [checkpointing_table(results.table), source, picture_link(path, "promises", DOCS)]
        saved["exactness"] += [exactness_table(results.table), source]
        planned["planned"] += [planned_table(results.table), source]
        planned["frontiers"].append(picture_link(path, "frontiers", DOCS))
        planned["kinds"].append(picture_link(path, "kinds", DOCS))
        planned["goals"] += [goals_table(check_goals(results)), source]
    for path in newest_results(FOLDER, HYBRID):
        results = Results.load(path)
        planned["planned"] += [planned_table(results.table), f"{made_with(results)} From `{path.as_posix()}`."]
    for path in newest_results(FOLDER, MONET):
        planned["monet"] += [monet_table(path), f"From `{path.as_posix()}`."]
    for path in newest_results(FOLDER, COMPILED):
        saved["compiled"] += [compiled_table(path), f"From `{path.as_posix()}`."]
    if gpu := gpu_tables(FOLDER):
        planned["gpu"].append(gpu)
    joined = [{name: "\n\n".join(parts) for name, parts in blocks.items()} for blocks in (saved, planned)]
    return joined[0], joined[1]


def main() -> None:
    """Rewrite the blocks of README.md, with the pipeline's graph as DVC draws it, and of the pages in docs."""
    graph = subprocess.run(["dvc", "dag", "--mermaid", "dvc.yaml"], check=True, capture_output=True, text=True).stdout
    pages = page_blocks()
    pages["README.md"]["graph"] = f"```mermaid\n{graph.strip()}\n```"
    for name, blocks in pages.items():
        page = Path(name)
        page.write_text(replace_blocks(page.read_text(encoding="utf-8"), blocks), encoding="utf-8")


if __name__ == "__main__":
    main()
