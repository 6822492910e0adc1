from __future__ import annotations

import pytest

from tools.chinese import chinese_headings, chinese_tables

BLOCK = """Text.

| gate       | measured | status   | note      |
| ---------- | -------: | -------- | --------- |
| type top-1 |  82.17 % | **fail** | some text |

More text.

| seed | gain, points |
|---|---|
| 0 | -0.67 |
"""


def test_headings_rows_and_verdicts_are_translated_and_numbers_kept() -> None:
    gates, seeds = (
        [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]
        for table in chinese_tables(BLOCK)
    )
    assert gates[0] == ["门槛项", "实测", "结论"]
    assert gates[1][1].endswith(":")
    assert gates[2] == ["机型 top-1", "82.17 %", "**未通过**"]
    assert seeds[0] == ["种子", "提升（百分点）"]
    assert seeds[2] == ["0", "-0.67"]


@pytest.mark.parametrize("table", ["| colour |\n| --- |\n| 1 |\n", "| gate |\n| --- |\n| sharpness |\n"])
def test_an_unknown_word_is_named(table: str) -> None:
    with pytest.raises(ValueError, match=r"no word for '(colour|sharpness)'"):
        chinese_tables(table)


def test_what_has_no_chinese_word_stays_as_it_is() -> None:
    block = "Text.\n\n| stage | colour |\n|---|---:|\n| train_stage_a | 1 |\n| all | 2 |\n\n![alt](picture.png)"
    text = chinese_headings(block)
    assert text.startswith("Text.\n\n|")
    assert text.endswith("|\n\n![alt](picture.png)")
    table = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    assert [table[0], *table[2:]] == [["阶段", "colour"], ["train_stage_a", "1"], ["全部", "2"]]
    assert chinese_headings("| stage |\n|---|\n| all |").splitlines()[0].strip("| ") == "阶段"
