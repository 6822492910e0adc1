"""The source that params.yaml names."""

from __future__ import annotations

from pathlib import Path

from aerofuse.ingest.fgvc_source import BANNER_PX, list_fgvc
from aerofuse.ingest.file_source import FileSource
from aerofuse.ingest.intake import IntakeSettings
from aerofuse.ingest.params import DataParams
from aerofuse.ingest.source import Source
from aerofuse.ingest.synthetic_source import SyntheticSource
from aerofuse.ingest.table_source import list_table


def create_source(params: DataParams, image_size_px: int, work: Path) -> Source:
    """The source, its photos taken in; `work` keeps what need not be done again.

    Raises `FileNotFoundError` or `ValueError` for photos or labels that cannot be used.
    """
    if params.source == "synthetic":
        return SyntheticSource(params.synthetic, params.split.seed)
    if params.source == "table":
        listing, banner_px = list_table(Path(params.root), Path(params.labels)), 0
    else:
        listing, banner_px = list_fgvc(Path(params.root), params.fgvc_level, work / "extracted"), BANNER_PX
    settings = IntakeSettings(image_size_px, banner_px, params.crop.padding if params.crop.to_box else None)
    return FileSource(
        listing,
        settings,
        work / "photos",
        max_bad_fraction=params.max_bad_fraction,
        duplicate_bits=params.duplicate_bits,
    )
