"""A small archive in the layout of FGVC-Aircraft 2013b, of drawn photos."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from tests.ingest.photo_folder import draw_folder

BANNER = (0, 255, 0)
_SPLITS = ("train", "train", "val", "test")
_LEVELS: dict[str, Callable[[str], str]] = {
    "variant": lambda name: f"{name}-100",
    "family": lambda name: name,
    "manufacturer": lambda name: name[:1],
}


def make_fgvc(folder: Path, photos: int = 40, types: int = 2) -> Path:
    """Write `fgvc-aircraft-2013b/data/...` below `folder`; returns `fgvc-aircraft-2013b`."""
    drawn = draw_folder(folder / "drawn", photos=photos, side_px=120, types=types)
    data = folder / "fgvc-aircraft-2013b" / "data"
    (data / "images").mkdir(parents=True)
    lines: dict[str, list[str]] = {}
    boxes = []
    for number in range(len(drawn.table)):
        photo = f"{number:07}"
        image = drawn.image(number)
        framed = Image.new("RGB", (image.width, image.height + 20), BANNER)
        framed.paste(image, (0, 0))
        framed.save(data / "images" / f"{photo}.jpg", quality=95)
        split = _SPLITS[number % len(_SPLITS)]
        for level, name_of in _LEVELS.items():
            line = f"{photo} {name_of(drawn.table['typename'][number])}"
            lines.setdefault(f"images_{level}_{split}.txt", []).append(line)
            if split != "test":
                lines.setdefault(f"images_{level}_trainval.txt", []).append(line)
        boxes.append(f"{photo} 21 11 {image.width - 20} {image.height - 10}")
    lines["images_box.txt"] = boxes
    for name, content in lines.items():
        (data / name).write_text("\n".join(content) + "\n")
    return data.parent


def pack(folder: Path, archive: Path) -> Path:
    """The folder as a `.tar.gz`."""
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, arcname=folder.name)
    return archive
