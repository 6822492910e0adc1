"""A folder of drawn photos with its label table, for tests to plant faults in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from PIL import Image

from aerofuse.ingest.sources import SyntheticSource
from aerofuse.synthetic.params import SyntheticParams


@dataclass
class PhotoFolder:
    """`root` with its photos, and the rows of the table, which `write` saves."""

    root: Path
    table: pd.DataFrame

    @property
    def labels(self) -> Path:
        return self.root / "labels.csv"

    def write(self) -> None:
        self.table.to_csv(self.labels, index=False)

    def add(self, filename: str, like: int = 0, **labels: object) -> Path:
        """A row more, labelled as row `like`; the caller writes the file."""
        row = (
            self.table.iloc[like].to_dict() | {"registration": f"X-{len(self.table)}"} | labels | {"filename": filename}
        )
        self.table = pd.concat([self.table, pd.DataFrame([row])], ignore_index=True)
        path = self.root / filename
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def image(self, row: int) -> Image.Image:
        """The photo of a row."""
        return Image.open(self.root / self.table["filename"].iloc[row]).copy()


def draw_folder(root: Path, photos: int = 60, side_px: int = 96, types: int = 2, seed: int = 0) -> PhotoFolder:
    """Drawn photos of so many types, in files of 4:3, with a table of all labels."""
    source = SyntheticSource(
        SyntheticParams(num_images=40 * photos // types, num_airframes=2 * photos, degradation=0.5), seed
    )
    index = source.index()
    names = source.types[:types]
    rows = [row for name in names for row in index.index[index["typename"] == name][: photos // types]]
    root.mkdir(parents=True, exist_ok=True)
    labels = []
    for number, photo in enumerate(source.photos(rows, side_px)):
        filename = f"photo-{number:04}.jpg"
        wide = Image.new("RGB", (side_px * 4 // 3, side_px), "lightblue")
        wide.paste(Image.fromarray(photo.image), (side_px // 6, 0))
        wide.save(root / filename, quality=92)
        labels.append(
            {
                "filename": filename,
                "typename": photo.typename,
                "airlinename": photo.airlinename,
                "clarity": round(photo.clarity or 0.0, 4),
                "block": round(photo.block or 0.0, 4),
                "registration": photo.registration,
            }
        )
    folder = PhotoFolder(root, pd.DataFrame(labels))
    folder.write()
    return folder
