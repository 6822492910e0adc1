"""Keeps the numbers in README.md those that the pipeline wrote: `make readme`.

A block of README.md between `<!-- NAME -->` and `<!-- /NAME -->` is replaced by what the pipeline wrote.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

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


def readme_blocks() -> dict[str, str]:
    """The blocks of README.md from the reports in the working folder."""
    page = (REPORTS / "comparison.md").read_text(encoding="utf-8")
    return {
        "models": section(page, "Models"),
        "gates": section(page, "Gates"),
        "seeds": (REPORTS / "seeds.md").read_text(encoding="utf-8"),
    }


def weights_page_blocks() -> dict[str, str]:
    """The blocks of docs/weights.md."""
    return {"initialisation": (REPORTS / "initialisation.md").read_text(encoding="utf-8")}


def main() -> None:
    """Rewrite README.md, with the pipeline's graph as DVC draws it, and docs/weights.md."""
    graph = subprocess.run(["dvc", "dag", "--mermaid"], check=True, capture_output=True, text=True).stdout
    blocks = readme_blocks() | {"graph": f"```mermaid\n{graph.strip()}\n```"}
    for page, its_blocks in ((Path("README.md"), blocks), (Path("docs/weights.md"), weights_page_blocks())):
        page.write_text(replace_blocks(page.read_text(encoding="utf-8"), its_blocks), encoding="utf-8")


if __name__ == "__main__":
    main()
