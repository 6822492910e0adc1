"""Links to the photos and tables that the parameters name, for `dvc.yaml` to depend on.

DVC takes a path from a parameter, but no mapping with a path for each split, and its dependencies have fixed names.
"""

from __future__ import annotations

import os
from pathlib import Path

from aerofuse.ingest.params import SPLITS, DataParams

INPUTS = Path("data/inputs")
NAMES = tuple(f"{parameter}_{number}" for parameter in ("root", "labels") for number in range(1, 1 + len(SPLITS)))


def link_inputs(data: DataParams, unused: Path, folder: Path = INPUTS) -> None:
    """Make the links `NAMES` in `folder`. Those that are more than the source reads lead to the file `unused`.

    Raises `FileNotFoundError` where a parameter names nothing that exists.
    """
    targets = dict.fromkeys(NAMES, unused)
    for parameter in ("root", "labels"):
        named = [(name, path) for name, path in data.inputs.items() if name.partition(".")[0] == parameter]
        for number, (name, path) in enumerate(named, start=1):
            if not path.exists():
                raise FileNotFoundError(
                    f"data.{name} is {str(path)!r}: no such file or folder; name what is there in params.yaml"
                )
            targets[f"{parameter}_{number}"] = path
    folder.mkdir(parents=True, exist_ok=True)
    for link, path in targets.items():
        target = path if path.is_absolute() else Path(os.path.relpath(path, folder))
        if not ((folder / link).is_symlink() and (folder / link).readlink() == target):
            (folder / link).unlink(missing_ok=True)
            (folder / link).symlink_to(target)
