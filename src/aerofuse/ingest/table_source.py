"""A folder of photos and a label table."""

from __future__ import annotations

import unicodedata
from pathlib import Path

from aerofuse.data.photo_files import photos_below
from aerofuse.ingest.file_source import Listing
from aerofuse.ingest.label_table import read_label_table


def list_table(root: Path, labels: Path) -> Listing:
    """The photos that the table `labels` names, in files below the folder `root`.

    Raises `FileNotFoundError`, or `ValueError` for a table that cannot be used.
    """
    if not root.is_dir():
        kind = "a file, and must be a folder" if root.exists() else "no such folder"
        raise FileNotFoundError(f"data.root is {str(root)!r}: {kind}; name the folder with your photos")
    table = read_label_table(labels)
    found = {unicodedata.normalize("NFC", str(path.relative_to(root))): path for path in photos_below(root)}
    frame = table.frame.copy()
    # What is not there is put aside with its reason, as any photo that cannot be read.
    resolved = root.resolve()
    frame["path"] = [found.get(name, root / name) for name in frame["filename"]]
    for row, name, path in frame[["row", "filename", "path"]].itertuples(index=False):
        if not path.resolve().is_relative_to(resolved):
            raise ValueError(
                f"{labels}, row {row}, filename {name!r}: a link that leaves data.root ({root}); copy the photo into it"
            )
    unlisted = sorted(set(found) - set(frame["filename"]))
    return Listing(frame, table.types, table.airlines, tuple(unlisted))
