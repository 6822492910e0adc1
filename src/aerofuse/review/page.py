"""The page of a review as one HTML file that opens without a network."""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path

from markupsafe import Markup
from PIL import Image
from tqdm import tqdm

from aerofuse.common.files import write_atomically
from aerofuse.data.photo import open_photo
from aerofuse.plotting.chart import data_uri
from aerofuse.report.templating import colour_variables, open_templates
from aerofuse.review.review import Review
from aerofuse.review.tables import LABELS_FILE, TO_LABEL_FILE

TEMPLATES = Path(__file__).with_name("templates")
_SHOWN_PROBLEMS = 20


def write_review_page(review: Review, path: Path, banner_px: int = 0) -> None:
    """Write the page with all its pictures, which are read again from the photos; the same review, the same bytes."""

    @cache
    def picture(file: Path, side_px: int) -> str:
        image = open_photo(file, side_px, banner_px=banner_px).image
        image.thumbnail((side_px, side_px), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        image.save(buffer, format="JPEG", quality=80, optimize=True)
        return data_uri("jpeg", buffer.getvalue())

    environment = open_templates(TEMPLATES)
    environment.filters["picture"] = picture
    text = environment.get_template("review.html.j2").render(
        review=review,
        suspects=tqdm(review.suspects, desc="suspects drawn", unit="photo", disable=None),
        labelled=review.labelled.to_dict("records"),
        unlabelled=review.unlabelled.to_dict("records"),
        problems=review.problems[:_SHOWN_PROBLEMS],
        more_problems=max(0, len(review.problems) - _SHOWN_PROBLEMS),
        labels_file=LABELS_FILE,
        to_label_file=TO_LABEL_FILE,
        style=Markup(colour_variables() + (TEMPLATES / "review.css").read_text(encoding="utf-8")),
    )
    write_atomically(path, text.encode("utf-8", "backslashreplace"))
