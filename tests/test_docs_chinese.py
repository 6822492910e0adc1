"""A Chinese page says what the English page beside it says: same headings, code, tables, links and numbers."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from tests.imports import ROOT
from tests.test_docs_commands import PAGES, blocks, commands

CHINESE = ".zh-CN.md"
TRANSLATIONS = [page for page in PAGES if page.name.endswith(CHINESE)]
# README.zh-CN.md is shorter: it lacks the graph and the sentences between tables, and its comments are in Chinese.
WHOLE = [page for page in TRANSLATIONS if page.name != "README.zh-CN.md"]
each_translation = pytest.mark.parametrize("page", TRANSLATIONS, ids=lambda page: page.name)
each_whole_translation = pytest.mark.parametrize("page", WHOLE, ids=lambda page: page.name)


def _english(page: Path) -> Path:
    return page.with_name(page.name.replace(CHINESE, ".md"))


def _prose(page: Path) -> str:
    """A page without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def _headings(page: Path) -> list[tuple[str, str]]:
    return re.findall(r"^(#+) (.*)$", _prose(page), re.MULTILINE)


def _anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings: in lower case, without punctuation, with dashes for blanks."""
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for _, text in _headings(page)}


def _table_rows(page: Path) -> list[int]:
    """The number of lines of each table, one after the other."""
    tables = re.findall(r"(?:^ *\|.*\|\n)+", _prose(page), re.MULTILINE)
    return [len(table.splitlines()) for table in tables]


def _links(page: Path) -> list[str]:
    """Where a page leads to, without the line of languages at its top."""
    return re.findall(r"\]\(([^)\s]+)\)", "\n".join(_prose(page).splitlines()[3:]))


def _english_targets(page: Path) -> Counter[str]:
    return Counter(link.partition("#")[0].replace(CHINESE, ".md") for link in _links(page))


def test_there_are_translations() -> None:
    assert len(WHOLE) >= 5
    assert all(_english(page).is_file() for page in TRANSLATIONS)


@each_translation
def test_each_page_leads_to_the_other(page: Path) -> None:
    english = _english(page)
    assert english.read_text(encoding="utf-8").splitlines()[2] == f"English | [简体中文]({page.name})"
    assert page.read_text(encoding="utf-8").splitlines()[2] == f"[English]({english.name}) | 简体中文"


@each_translation
def test_headings_have_the_same_levels(page: Path) -> None:
    assert [level for level, _ in _headings(page)] == [level for level, _ in _headings(_english(page))]


@each_translation
def test_tables_have_as_many_rows(page: Path) -> None:
    assert _table_rows(page) == _table_rows(_english(page))


@each_whole_translation
def test_blocks_of_code_are_equal(page: Path) -> None:
    assert list(blocks(page)) == list(blocks(_english(page)))


def test_the_commands_of_the_readme_are_equal() -> None:
    chinese, english = ROOT / "README.zh-CN.md", ROOT / "README.md"
    assert list(commands(chinese)) == list(commands(english))
    python = [[content for language, content in blocks(page) if language == "python"] for page in (chinese, english)]
    assert python[0] == python[1]


@each_whole_translation
def test_names_and_numbers_are_equal(page: Path) -> None:
    """What stands in backticks, and the numbers with a point: whole ones may be words in one of the two languages."""
    for pattern in (r"`([^`\n]+)`", r"\d+\.\d+"):
        here, there = (set(re.findall(pattern, _prose(side))) for side in (page, _english(page)))
        assert here == there


@each_whole_translation
def test_links_lead_to_the_same_places(page: Path) -> None:
    assert _english_targets(page) == _english_targets(_english(page))


@each_translation
def test_links_lead_to_the_chinese_page_where_there_is_one(page: Path) -> None:
    for link in _links(page):
        target = (page.parent / link.partition("#")[0]).resolve()
        if target.suffix == ".md" and target != _english(page):
            assert target in TRANSLATIONS or target.with_name(f"{target.stem}{CHINESE}") not in TRANSLATIONS, link


@each_translation
def test_bold_ends_where_markdown_sees_it(page: Path) -> None:
    """Two stars between a full-width mark and a letter end nothing: the mark stands behind them."""
    assert not re.search(r"\*\*[^*\n]+[，。：；！？）”]\*\*\w", _prose(page))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_anchors_are_headings(page: Path) -> None:
    for link in _links(page):
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if anchor and target.suffix == ".md" and not name.startswith("https://"):
            assert anchor in _anchors(target), link
