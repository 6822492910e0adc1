"""Photos to the three prepared splits and their class lists, with a report on the data."""

from __future__ import annotations

import os
from pathlib import Path

from stages import run

PREPARED = Path("data/prepared")
# Below the main repository also in a temporary experiment, and not an output, which DVC removes before a run.
WORK = Path(os.environ.get("DVC_ROOT", ".")) / ".resume" / "prepare"


def prepare() -> None:
    # The processes that read photos import this page, too; torch and pictures would be 220 MB more in each of them.
    from aerofuse.common.params import load_section, load_value
    from aerofuse.data.shards import check_store
    from aerofuse.ingest.data_report import write_data_report
    from aerofuse.ingest.params import DataParams
    from aerofuse.ingest.prepare import prepare_photos
    from aerofuse.ingest.sources import create_source
    from aerofuse.ingest.summary import summarise

    params = load_section(DataParams, "data")
    image_size_px = load_value(int, "recipes.{recipe}.image_size")
    if params.shards.url is not None:
        check_store(params.shards.url)
    source = create_source(params, image_size_px, WORK)
    merges = params.small_types == "merge"
    index = prepare_photos(
        source,
        params.split,
        image_size_px,
        PREPARED,
        merge_small_types=merges,
        leaks=params.leaks,
        shards=params.shards,
    )
    summary = summarise(index, source, PREPARED)
    write_data_report(summary, PREPARED, Path("reports/data"))


if __name__ == "__main__":
    run(prepare)
