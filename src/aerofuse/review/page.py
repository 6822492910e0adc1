"""The page of a review as one HTML file that opens without a network."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from markupsafe import Markup
from PIL import Image
from tqdm import tqdm

from aerofuse.common.files import write_atomically
from aerofuse.data.photo import open_photo
from aerofuse.plotting.chart import page_colours
from aerofuse.report.templating import open_templates
from aerofuse.review.review import Review
from aerofuse.review.tables import LABELS_FILE, TO_LABEL_FILE

TEMPLATES = Path(__file__).with_name("templates")
_SUSPECT_PX, _NEIGHBOUR_PX = 360, 150
_SHOWN_PROBLEMS = 20


@dataclass(frozen=True)
class Shown:
    """A photo on the page: its file name, its picture, its label, and whether that is the label in question."""

    filename: str
    picture: str
    label: str
    agrees: bool = False


@dataclass(frozen=True)
class ShownSuspect:
    """A suspect on the page; probabilities are in words."""

    photo: Shown
    likely: str
    likely_probability: str
    given_probability: str
    neighbours: list[Shown]


@dataclass(frozen=True)
class ShownLesson:
    """A photo to label on the page."""

    photo: Shown
    probability: str
    runner_up: str


def write_review_page(review: Review, path: Path, banner_px: int = 0) -> None:
    """Write the page with all its pictures, which are read again from the photos; the same review, the same bytes."""

    @cache
    def picture(file: Path, side_px: int) -> str:
        image = open_photo(file, side_px, banner_px=banner_px).image
        image.thumbnail((side_px, side_px), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        image.save(buffer, format="JPEG", quality=80, optimize=True)
        return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"

    names, files = list(review.labelled["filename"]), list(review.labelled["path"])
    types = list(review.labelled["typename"])
    suspects = [
        ShownSuspect(
            Shown(names[suspect.row], picture(files[suspect.row], _SUSPECT_PX), types[suspect.row]),
            suspect.likely,
            f"{suspect.likely_probability:.0%}",
            f"{suspect.given_probability:.1%}",
            [
                Shown(names[row], picture(files[row], _NEIGHBOUR_PX), types[row], types[row] == types[suspect.row])
                for row in suspect.neighbours
            ],
        )
        for suspect in tqdm(review.suspects, desc="suspects drawn", unit="photo", disable=None)
    ]
    lessons = [
        ShownLesson(
            Shown(
                review.unlabelled["filename"].iloc[lesson.photo],
                picture(review.unlabelled["path"].iloc[lesson.photo], _SUSPECT_PX),
                lesson.likely,
            ),
            f"{lesson.probability:.0%}",
            lesson.runner_up,
        )
        for lesson in review.lessons
    ]
    text = (
        open_templates(TEMPLATES)
        .get_template("review.html.j2")
        .render(
            review=review,
            suspects=suspects,
            lessons=lessons,
            problems=review.problems[:_SHOWN_PROBLEMS],
            more_problems=max(0, len(review.problems) - _SHOWN_PROBLEMS),
            labels_file=LABELS_FILE,
            to_label_file=TO_LABEL_FILE,
            style=Markup(_colours() + (TEMPLATES / "review.css").read_text(encoding="utf-8")),
        )
    )
    write_atomically(path, text.encode("utf-8", "backslashreplace"))


def _colours() -> str:
    light, dark = (
        " ".join(f"{name}: {colour};" for name, colour in page_colours(scheme).items()) for scheme in ("light", "dark")
    )
    return f":root {{ {light} }}\n@media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}\n"
