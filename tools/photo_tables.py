"""What preparing photos, finding copies among them and loading them takes, as tables for docs/data.md."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from aerofuse.common.markdown import markdown_table
from aerofuse.plotting.wording import NONE, write_duration


def loading_table(path: Path) -> str:
    """Return how many images per second each way loads, the fastest first, and what was loaded."""
    table = pd.read_csv(path).sort_values("images_per_second", ascending=False)
    first = table.iloc[0]
    rows = [[row["way"], f"{row['images_per_second']:.0f}"] for _, row in table.iterrows()]
    source = (
        f"{first['photos']} drawn photos in files of {first['file_size_px']} px, at {first['image_size_px']} px, "
        f"{first['workers']} worker processes on {first['cores']} cores. From `{path.as_posix()}`."
    )
    return "\n\n".join([markdown_table(["way", "images per second"], rows, "lr"), source])


def preparing_table(path: Path) -> str:
    """Return each run of the stage: what it read, how long it took, and the most memory that it had."""
    table = pd.read_csv(path)
    first = table.iloc[0]
    header = ["run", "time", "photos read", "read before", "read per second", "most memory", "of its own process"]
    rows = [
        [
            row["run"],
            write_duration(row["seconds"]),
            str(row["photos_read"]),
            str(row["photos_read_again"]),
            f"{row['photos_read_per_second']:.0f}" if row["photos_read"] else NONE,
            f"{row['peak_bytes'] / 1e9:.2f} GB",
            f"{row['peak_bytes_of_parent'] / 1e9:.2f} GB",
        ]
        for _, row in table.iterrows()
    ]
    source = (
        f"{first['photos']} photos, at {first['image_size_px']} px, on {first['cores']} cores. "
        f"From `{path.as_posix()}`."
    )
    return "\n\n".join([markdown_table(header, rows, "l" + "r" * (len(header) - 1)), source])


def copies_table(path: Path) -> str:
    """Return how long each search for copies took, beside comparing all pairs where that was done, and its memory."""
    table = pd.read_csv(path)
    header = ["fingerprints", "bits", "radius", "all pairs", "index", "times faster", "the same pairs", "most memory"]
    rows = [
        [
            f"{row['fingerprints']:,}",
            row["kind"],
            str(row["most_bits"]),
            *_beside_all_pairs(row),
            f"{row['peak_bytes'] / 1e9:.2f} GB",
        ]
        for _, row in table.iterrows()
    ]
    source = f"On {table['cores'][0]} cores. From `{path.as_posix()}`."
    return "\n\n".join([markdown_table(header, rows, "ll" + "r" * 6), source])


def _beside_all_pairs(row: pd.Series) -> list[str]:
    fast, slow = row["seconds"], row["seconds_all_pairs"]
    if pd.isna(slow):
        return [NONE, f"{fast:.1f} s", NONE, NONE]
    return [f"{slow:.1f} s", f"{fast:.1f} s", f"{slow / fast:.0f}", "yes" if row["same_pairs"] else "**no**"]


def nodes_table(path: Path) -> str:
    """Return how fast clusters of Ray prepare photos, beside `prepare` without Ray: the median of all rounds."""
    table = pd.read_csv(path)
    first = table.iloc[0]
    found = table.groupby(["engine", "nodes"], as_index=False).agg(
        speed=("photos_per_second", "median"), same=("same_bytes", "all")
    )
    one_node = float(found[(found["engine"] == "ray") & (found["nodes"] == 1)]["speed"].iloc[0])
    rows = [
        [
            f"{row['nodes']} of Ray" if row["engine"] == "ray" else "none",
            str(row["nodes"] if row["engine"] == "ray" else row["cores"]),
            f"{row['speed']:.0f}",
            f"{row['speed'] / one_node:.2f}" if row["engine"] == "ray" else NONE,
            "yes" if row["same"] else "**no**",
        ]
        for _, row in found.assign(cores=first["cores"]).iterrows()
    ]
    header = ["nodes", "cores", "photos per second", "times one node", "the same bytes"]
    source = (
        f"{first['photos']} photos of {first['photo_width_px']} px, at {first['image_size_px']} px. "
        f"From `{path.as_posix()}`."
    )
    return "\n\n".join([markdown_table(header, rows, "l" + "r" * 4), source])


def shards_table(path: Path) -> str:
    """Return how fast photos are loaded and trained on, from one file and from shards in several ways."""
    table = pd.read_csv(path)
    first = table.iloc[0]
    header = ["way", "loaded per second", "of one file", "trained per second", "of one file"]
    rows = [
        [
            row["way"],
            f"{row['loaded_per_second']:.0f}",
            f"{row['loaded_share']:.2f}",
            f"{row['trained_per_second']:.1f}",
            f"{row['trained_share']:.2f}",
        ]
        for _, row in table.iterrows()
    ]
    source = (
        f"{first['photos']} drawn photos at {first['image_size_px']} px in {first['shards']} shards, the store is "
        f"`{first['store']}://`, {first['workers']} worker processes on {first['cores']} cores. "
        f"From `{path.as_posix()}`."
    )
    return "\n\n".join([markdown_table(header, rows, "l" + "r" * 4), source])
