from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.imports import ROOT
from tools.readme import page_blocks, replace_blocks, section

TEXT = "before\n<!-- one -->\nold\n<!-- /one -->\nbetween\n<!-- two -->\n<!-- /two -->\nafter\n"


def test_only_the_blocks_change() -> None:
    replaced = replace_blocks(TEXT, {"one": "new \\1\n", "two": "| a |"})
    assert replaced == (
        "before\n<!-- one -->\nnew \\1\n<!-- /one -->\nbetween\n<!-- two -->\n| a |\n<!-- /two -->\nafter\n"
    )
    assert replace_blocks(replaced, {"one": "new \\1\n", "two": "| a |"}) == replaced


def test_a_missing_block_is_named() -> None:
    with pytest.raises(ValueError, match="<!-- three -->"):
        replace_blocks(TEXT, {"three": ""})


def test_a_section_ends_at_the_next_heading() -> None:
    page = "# Title\n\n## One\n\ntext\n\n### Part\n\nmore\n\n## Two\n\nother\n"
    assert section(page, "One") == "text\n\n### Part\n\nmore"
    assert section(page, "Two") == "other"
    with pytest.raises(ValueError, match="no section 'Three'"):
        section(page, "Three")


def test_the_pages_hold_what_the_pipeline_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As committed: whoever has just run the pipeline has times of their own in the reports, and old ones here."""
    committed = ["README.md", "README.zh-CN.md", "docs", "reports"]
    archive = subprocess.run(["git", "archive", "HEAD", *committed], cwd=ROOT, check=True, capture_output=True).stdout
    subprocess.run(["tar", "-x"], cwd=tmp_path, input=archive, check=True)
    monkeypatch.chdir(tmp_path)
    for page, blocks in page_blocks().items():
        text = Path(page).read_text(encoding="utf-8")
        assert replace_blocks(text, blocks) == text
