"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tabulate import tabulate


@dataclass(frozen=True)
class Table:
    """The cells of a table; `align` has a letter per column: `l`, left, for words and `r`, right, for numbers."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    align: str

    def markdown(self) -> str:
        """Return the table as Markdown: see `markdown_table`."""
        return markdown_table(self.header, self.rows, self.align)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]], align: str) -> str:
    """Return a Markdown table. Raises `ValueError` where a row, or `align`, is not as long as the header."""
    if len(align) != len(header) or set(align) - set("lr"):
        raise ValueError(f"align is {align!r}; it must be {len(header)} letters, l or r, one per column")
    for row in rows:
        if len(row) != len(header):
            raise ValueError(f"{len(row)} cells under {len(header)} headings: {list(row)}")
    header, *rows = ([cell.replace("|", "\\|") for cell in row] for row in (header, *rows))
    sides = ["left" if side == "l" else "right" for side in align]
    return str(tabulate(rows, header, tablefmt="pipe", colalign=sides, disable_numparse=True))
