"""Photos of the prepared test split, to try the page on."""

from __future__ import annotations

from pathlib import Path

from aerofuse.data.store import open_table

_COUNT = 6


def write_examples(prepared: Path, folder: Path) -> list[tuple[Path, str]]:
    """Write some photos, of different types as far as there are, to `folder`: their files and types.

    None where nothing is prepared in `prepared`.
    """
    split = prepared / "test.arrow"
    if not split.is_file():
        return []
    table = open_table(split)
    types = table["typename"].to_pylist()
    first = {name: number for number, name in reversed(list(enumerate(types))) if name is not None}
    chosen = sorted(first.items())[:_COUNT]
    examples = []
    for name, number in chosen:
        file = folder / f"{number}.jpg"
        file.write_bytes(table["image"][number].as_buffer())
        examples.append((file, name))
    return examples
