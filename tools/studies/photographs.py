"""The models on a folder of photographs, each from several weights: `make photographs PHOTOS=FOLDER`.

Each candidate of `photographs.yaml` is one DVC experiment, which trains some models and evaluates them on the test
photos of the label table. `reports/photographs.json`, `.md` and `.png` are the result: figures, and no photo.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from ruamel.yaml import YAML

from aerofuse.common.files import read_json, write_json
from aerofuse.common.params import load_section
from aerofuse.comparison.comparison import TRAINING_STAGES
from aerofuse.comparison.times import EvaluationTimes, TrainingTimes
from aerofuse.ingest.given_splits import check_given_split
from aerofuse.ingest.label_table import read_label_table
from aerofuse.ingest.params import TEST, TRAIN, split_named
from aerofuse.metrics.params import CompareParams
from aerofuse.metrics.predictions import read_predictions
from tools.studies.experiments import copy_results, run_experiment
from tools.studies.photographs_page import PhotographResult, PhotographStudy, draw_photographs, photographs_page

logger = logging.getLogger(__name__)

CANDIDATES = Path(__file__).with_suffix(".yaml")
REPORT = Path("reports/photographs.json")
SPLIT_TABLE = Path(".resume/photographs/labels.csv")
OFFICIAL = "official_split"
_DATA_REPORT, _TIMES = "reports/data/report.json", "reports/times"


@dataclass(frozen=True)
class PhotographCandidate:
    """One experiment: the models that it trains, and what it changes in params.yaml.

    `backbones` and `weights` are the words of the table, for the ConvNet and the transformer.
    """

    models: tuple[str, ...]
    backbones: tuple[str, str]
    weights: tuple[str, str]
    settings: Mapping[str, object]

    def shown(self, words: tuple[str, str], model: str) -> str:
        """Return those of two words that concern a model: the baselines have no transformer."""
        return ", ".join(dict.fromkeys(words if model == "hybrid" else words[:1]))


def load_candidates(path: Path = CANDIDATES) -> dict[str, PhotographCandidate]:
    """Return the candidates by their names."""
    content = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    return {
        name: PhotographCandidate(
            tuple(parts["models"]), tuple(parts["backbones"]), tuple(parts["weights"]), dict(parts["settings"])
        )
        for name, parts in content.items()
    }


def find_labels(photos: Path, split_table: Path) -> tuple[Path, str]:
    """Return the label table of a folder of photos that has a column `split`, and the SHA-256 of what it says.

    The table is `labels.csv` in the folder. One with a column `official_split`, as FGVC-Aircraft words it (trainval,
    test), is written to `split_table` with `split` in its place. Raises `FileNotFoundError` or `ValueError`, with the
    remedy, where the folder, the table or photos of train or of test are missing.
    """
    labels = photos / "labels.csv"
    if not photos.is_dir():
        raise FileNotFoundError(f"no folder {photos}; name yours: make photographs PHOTOS=FOLDER (docs/photographs.md)")
    if not labels.is_file():
        raise FileNotFoundError(
            f"{photos} has no labels.csv; write one with a row per photo and the columns filename, typename and split "
            "(docs/photographs.md)"
        )
    table = read_label_table(labels)
    frame, found = table.frame, labels
    if "split" not in frame:
        if OFFICIAL not in frame:
            raise ValueError(
                f"{labels} has no column split; add one that says train or test of each photo, because the models are "
                "measured on test photos that are given"
            )
        splits = [_official_split(labels, row, cell) for row, cell in zip(frame["row"], frame[OFFICIAL], strict=True)]
        frame, found = frame.assign(split=splits), split_table
    for split in (TRAIN, TEST):
        if split not in set(frame["split"]):
            raise ValueError(f"{labels} has no photo of {split} in its column of splits; write {split} in some rows")
    check_given_split(frame, table.places)
    content = frame.drop(columns=["row", OFFICIAL], errors="ignore").to_csv(index=False)
    if found is split_table:
        split_table.parent.mkdir(parents=True, exist_ok=True)
        split_table.write_text(content, encoding="utf-8")
    return found, hashlib.sha256(content.encode()).hexdigest()


def _official_split(labels: Path, row: int, cell: str) -> str:
    try:
        return TRAIN if cell.strip().casefold() == "trainval" else split_named(cell)
    except ValueError:
        raise ValueError(f"{labels}, row {row}, {OFFICIAL} {cell!r}: write trainval, train, val or test") from None


def read_experiment(
    name: str, candidate: PhotographCandidate, revision: str
) -> tuple[dict[str, int], list[PhotographResult]]:
    """Return the numbers of photos and types of an experiment, and the result of each model."""
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        stages = [stage for model in candidate.models for stage in TRAINING_STAGES[model]]
        times = [*stages, *(f"evaluate_{model}" for model in candidate.models)]
        predictions = [f"reports/predictions/{model}.parquet" for model in candidate.models]
        files = [_DATA_REPORT, *predictions, *(f"{_TIMES}/{file}.json" for file in times)]
        copy_results(revision, files, folder)
        splits = read_json(folder / _DATA_REPORT)["splits"]
        photos = {split: found["photos"] for split, found in splits.items()} | {"types": len(splits[TRAIN]["types"])}
        return photos, [_read_model(name, candidate, model, folder) for model in candidate.models]


def _read_model(name: str, candidate: PhotographCandidate, model: str, folder: Path) -> PhotographResult:
    predictions = read_predictions(folder / f"reports/predictions/{model}.parquet").sort_values("filename")
    answers = list(zip(predictions["type"], predictions["type_predicted"], predictions["type_top5"], strict=True))
    training = TrainingTimes.total(
        [TrainingTimes.read(folder / f"{_TIMES}/{stage}.json") for stage in TRAINING_STAGES[model]]
    )
    return PhotographResult(
        candidate=name,
        model=model,
        backbones=candidate.shown(candidate.backbones, model),
        weights=candidate.shown(candidate.weights, model),
        image_size=EvaluationTimes.read(folder / f"{_TIMES}/evaluate_{model}.json").image_size,
        views=training.views,
        seconds=training.seconds,
        device=training.device,
        busy_elsewhere=training.busy_elsewhere,
        top1_right="".join(str(int(label == predicted)) for label, predicted, _ in answers),
        top5_right="".join(str(int(label in likeliest)) for label, _, likeliest in answers),
    )


def read_known(labels_sha256: str) -> list[PhotographResult]:
    """Return the results that the report has of candidates that there still are.

    Raises `ValueError` where they are of other photos or labels.
    """
    if not REPORT.is_file():
        return []
    content = read_json(REPORT)
    if content["labels_sha256"] != labels_sha256:
        raise ValueError(f"{REPORT} was measured with another label table; leave out --add to begin a new one")
    known = load_candidates()
    return [PhotographResult.from_json(result) for result in content["results"] if result["candidate"] in known]


def write_report(photos: Mapping[str, int], labels_sha256: str, results: Sequence[PhotographResult]) -> None:
    """Write the results as JSON, as a page and as a chart, in the order of the candidates."""
    params, order = load_section(CompareParams, "compare"), list(load_candidates())
    ordered = sorted(
        results, key=lambda result: (order.index(result.candidate), list(TRAINING_STAGES).index(result.model))
    )
    study = PhotographStudy(photos, tuple(ordered), params.confidence_level, params.bootstrap_samples)
    write_json(REPORT, {"labels_sha256": labels_sha256, **study.to_json()})
    REPORT.with_suffix(".md").write_text(photographs_page(study), encoding="utf-8")
    draw_photographs(study, REPORT.with_suffix(".png"))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the candidates and write the report, after each what is known by then."""
    candidates = load_candidates()
    parser = argparse.ArgumentParser(prog="python -m tools.studies.photographs", description=__doc__)
    parser.add_argument("photos", type=Path, metavar="PHOTOS", help="a folder of photographs with its labels.csv")
    names = list(candidates)
    text = f"candidates to run: {', '.join(names)} (default: all)"
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME", help=text)
    parser.add_argument("--add", action="store_true", help="keep what the report holds; default: begin a new one")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    photos_folder = options.photos.expanduser()
    try:
        labels, labels_sha256 = find_labels(photos_folder, SPLIT_TABLE)
        known = read_known(labels_sha256) if options.add else []
    except (FileNotFoundError, ValueError) as error:
        parser.error(str(error))
    paths = {"data.root": photos_folder, "data.labels": labels}
    # In quotes, because of blanks and brackets; absolute, because an experiment runs in a copy of the repository.
    data = {"data.source": "table"} | {name: f'"{path.resolve()}"' for name, path in paths.items()}
    for number, name in enumerate(options.only, start=1):
        candidate = candidates[name]
        logger.info("%s, %d of %d: %s", name, number, len(options.only), ", ".join(candidate.models))
        targets = [f"evaluate@{model}" for model in candidate.models]
        revision = run_experiment(f"photographs-{name}", {**candidate.settings, **data}, targets)
        photos, results = read_experiment(name, candidate, revision)
        known = [result for result in known if result.candidate != name] + results
        write_report(photos, labels_sha256, known)
    logger.info("written: %s\n%s", REPORT, REPORT.with_suffix(".md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
