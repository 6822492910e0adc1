"""How well `unfamiliar_score` tells unfamiliar photos from those of the test split.

    python -m tools.studies.unfamiliar --photos FOLDER
    python -m tools.studies.unfamiliar --left-out "ATR 72-600" MD-11 [--photos FOLDER]

The first command scores the photos of a folder with `models/aerofuse`; it takes a minute for 2,000 photos. The second
trains the hybrid without the types that it names, as an experiment, and scores photos of these types. Its photos are
the folder's, with their label table, or those of `data/prepared`. It takes as long as training the hybrid. The results
are `reports/unfamiliar_photos.md` and `reports/unfamiliar_types.md`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import mannwhitneyu

import aerofuse
from aerofuse.common.markdown import markdown_table
from aerofuse.data.dataset import PreparedSplit, make_loader
from aerofuse.data.image_file import find_photos
from aerofuse.data.store import PhotoStore
from aerofuse.inference.predictor import Prediction, Predictor
from aerofuse.inference.unfamiliarity import UNFAMILIAR_ABOVE
from aerofuse.plotting.wording import write_value
from tools.studies.experiments import run_experiment

PACKAGE, PREPARED = Path("models/aerofuse"), Path("data/prepared")
_EXPERIMENT = "left-out-types"
_BATCH_SIZE = 32

Scores = npt.NDArray[np.float64]


def auroc(familiar: Scores, unfamiliar: Scores) -> float:
    """Return how often an unfamiliar photo has the higher score of two; equal ones count half."""
    return float(mannwhitneyu(unfamiliar, familiar).statistic / (len(familiar) * len(unfamiliar)))


def unfamiliar_page(familiar: Scores, unfamiliar: Scores, name: str) -> str:
    """Write the scores of the test split and of the photos `name` side by side, as Markdown."""
    rows = [
        [
            photos,
            str(len(scores)),
            f"{np.median(scores):.3f}",
            write_value((scores > UNFAMILIAR_ABOVE).mean(), "%"),
            area,
        ]
        for photos, scores, area in (
            ("test split", familiar, "-"),
            (name, unfamiliar, f"{auroc(familiar, unfamiliar):.4f}"),
        )
    ]
    header = ["photos", "number", "median score", "called unfamiliar", "AUROC against the test split"]
    return markdown_table(header, rows, "lrrrr") + "\n"


def score_split(predictor: Predictor, split: Path) -> Scores:
    """Return the scores of a prepared split."""
    loader = make_loader(PreparedSplit(split, predictor.record.classes), batch_size=_BATCH_SIZE, num_workers=0)
    return _scores(found for images, _ in loader for found in predictor.predict_batch(images))


def score_files(predictor: Predictor, files: Iterable[Path], banner_px: int) -> Scores:
    """Return the scores of photo files; those that cannot be read have none."""
    results = predictor.predict_files(files, batch_size=_BATCH_SIZE, banner_px=banner_px)
    return _scores(result.prediction for result in results if result.prediction is not None)


def write_photo_table(prepared: Path, folder: Path) -> Path:
    """Write the photos of all prepared splits to a folder with a label table, and return the table's path."""
    labels = []
    for split in ("train", "validation", "test"):
        photos = PhotoStore(prepared / f"{split}.arrow")
        rows = photos.labels.to_pandas()
        rows["filename"] = [f"{split}-{Path(name).stem}.jpg" for name in rows["filename"]]
        for row, name in enumerate(rows["filename"]):
            (folder / name).write_bytes(photos.encoded(row))
        labels.append(rows)
    path = folder / "labels.csv"
    pd.concat(labels).to_csv(path, index=False)
    return path


def study_types(left_out: Sequence[str], root: Path, labels: Path, banner_px: int) -> str:
    """Train without some types, and write how their photos are scored. Raises `ValueError` for an unknown type."""
    table = pd.read_csv(labels)
    types = sorted(table["typename"].dropna().unique())
    unknown = sorted(set(left_out) - set(types))
    if unknown:
        raise ValueError(f"{labels} has no type {', '.join(unknown)}; there are {', '.join(types)}")
    known = json.dumps([name for name in types if name not in left_out])
    data = {"data.source": "table", "data.root": root, "data.labels": labels, "data.only_types": known}
    revision = run_experiment(_EXPERIMENT, data, ["package"])
    with tempfile.TemporaryDirectory() as folder:
        for output in (PACKAGE, PREPARED):
            command = ["dvc", "get", ".", str(output), "--rev", revision, "--out", str(Path(folder) / output.name)]
            subprocess.run(command, check=True)
        predictor = aerofuse.load(Path(folder) / PACKAGE.name)
        familiar = score_split(predictor, Path(folder) / PREPARED.name / "test.arrow")
        files = (root / name for name in table["filename"][table["typename"].isin(left_out)])
        return unfamiliar_page(familiar, score_files(predictor, files, banner_px), ", ".join(left_out))


def _scores(predictions: Iterable[Prediction]) -> Scores:
    """Return the scores. Raises `ValueError` where a prediction has none."""
    scores = [found.unfamiliar_score for found in predictions]
    if None in scores:
        raise ValueError(f"{PACKAGE} has no statistics of its training photos; `dvc repro package` makes them")
    return np.array(scores, dtype=np.float64)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the table that is asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.studies.unfamiliar",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--photos", type=Path, metavar="FOLDER", help="a folder of photos")
    parser.add_argument("--labels", type=Path, help="their label table (default: labels.csv in that folder)")
    parser.add_argument(
        "--banner-px", type=int, default=0, metavar="N", help="rows cut off at the bottom of each photo"
    )
    parser.add_argument("--left-out", nargs="+", metavar="TYPE", help="types that a model is trained without")
    options = parser.parse_args(arguments)
    if options.left_out is None and options.photos is None:
        parser.error("name photos with --photos, or types with --left-out")
    if options.left_out is None:
        predictor = aerofuse.load(PACKAGE)
        photos = score_files(predictor, find_photos(options.photos).photos, options.banner_px)
        page = unfamiliar_page(score_split(predictor, PREPARED / "test.arrow"), photos, "photos of the folder")
        report = Path("reports/unfamiliar_photos.md")
    else:
        report = Path("reports/unfamiliar_types.md")
        if options.photos is not None:
            root = options.photos.resolve()
            labels = (options.labels or root / "labels.csv").resolve()
            page = study_types(options.left_out, root, labels, options.banner_px)
        else:
            with tempfile.TemporaryDirectory() as folder:
                root = Path(folder)
                page = study_types(options.left_out, root, write_photo_table(PREPARED, root), 0)
    report.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
