"""Photos to the three prepared splits, their class lists and a contact sheet."""

from __future__ import annotations

from pathlib import Path

from aerofuse.data.prepare import prepare_photos
from aerofuse.data.sources.synthetic_source import SyntheticSource
from aerofuse.params.data import DataParams
from aerofuse.params.loading import load_section, load_value
from aerofuse.reporting.contact_sheet import draw_contact_sheet
from stages import run

PREPARED = Path("data/prepared")


def prepare() -> None:
    params = load_section(DataParams, "data")
    image_size_px = load_value(int, "recipes.{recipe}.image_size")
    source = SyntheticSource(params.synthetic, params.split.seed)
    prepare_photos(source, params.split, image_size_px, PREPARED)
    draw_contact_sheet(PREPARED / "test.arrow", Path("plots/contact_sheet.png"))


if __name__ == "__main__":
    run(prepare)
