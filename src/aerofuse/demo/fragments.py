"""The page's answers about a photo and about a training step, and their HTML."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from aerofuse.checkpointing.budget import format_bytes
from aerofuse.data.photo import fit_square, open_photo
from aerofuse.inference.explain import explain
from aerofuse.inference.package import Pixels, as_batch, read_photo
from aerofuse.inference.predictor import Prediction, load_predictor
from aerofuse.inference.unfamiliarity import NOTICE
from aerofuse.plotting.chart import data_uri
from aerofuse.plotting.images import overlay
from aerofuse.training.step_question import StepAnswer

STYLES = Path(__file__).with_name("page.css")
PICTURE_PX = 384
_SHARES = {
    "attention weight": ("What the fusion gives each branch", "{:.0%}"),
    "gradient x input": ("What each branch adds to this answer, in logits", "{:+.1f}"),
}
_VALUES = {
    "clarity": ("Clarity", "0 blurred, 1 sharp"),
    "block": ("Block", "0 fully visible, 1 fully hidden"),
    "quality_score": ("Quality", "clarity * (1 - block)"),
    "unfamiliar_score": ("Unfamiliar", "0 like the training photos, 1 unlike them"),
}


@dataclass(frozen=True, eq=False)
class PhotoAnswer:
    """A prediction, the photo as the model's input in more pixels, and per backbone a map as a picture and a share."""

    prediction: Prediction
    photo: Pixels
    maps: Mapping[str, Pixels]
    shares: Mapping[str, float] | None
    measure: str | None


class PhotoAnswers:
    """Answers of a model that is loaded once. Raises what `aerofuse.load` raises."""

    def __init__(self, folder: Path) -> None:
        self._predictor = load_predictor(folder)
        self.record = self._predictor.record

    def answer(self, file: Path) -> PhotoAnswer:
        """Answer for a photo file, as `aerofuse predict` does. Raises `UnreadablePhotoError` with the reason."""
        images = as_batch([read_photo(file, self.record)])
        (prediction,) = self._predictor.predict_batch(images)
        photo = fit_square(open_photo(file, PICTURE_PX).image, PICTURE_PX, self.record.fit)
        task = self.record.architecture.tasks[0]
        explanation = explain(self._predictor.model, images[0], task=task)
        maps = {self._backbone(branch): overlay(photo, _enlarged(heat)) for branch, heat in explanation.maps.items()}
        if explanation.shares is None:
            return PhotoAnswer(prediction, photo, maps, None, None)
        shares = {self._backbone(branch): value for branch, value in explanation.shares.values.items()}
        return PhotoAnswer(prediction, photo, maps, shares, explanation.shares.measure)

    def _backbone(self, branch: str) -> str:
        return str(getattr(self.record.architecture, branch))


def message(text: str) -> str:
    """Return the reason why there is no answer, or why it may be wrong, as HTML."""
    return f'<p class="af-problem" role="alert">{escape(text)}</p>'


def photo_page(answer: PhotoAnswer) -> str:
    """Return the answer about a photo as HTML."""
    prediction = answer.prediction
    parts = [message(NOTICE)] if prediction.unfamiliar else []
    parts += [f'<div class="af-cards">{"".join(_cards(prediction))}</div>']
    if prediction.type_top5:
        bars = [(best.name, best.confidence, f"{best.confidence:.1%}") for best in prediction.type_top5]
        parts.append(_section("Likeliest types", _bars(bars)))
    pictures = _figure("the photo as the model is given it", answer.photo)
    pictures += "".join(_figure(f"{name} looks here", picture) for name, picture in answer.maps.items())
    parts.append(_section("Where it looks", f'<div class="af-pictures">{pictures}</div>'))
    if answer.shares is not None and answer.measure is not None:
        title, form = _SHARES[answer.measure]
        largest = max(map(abs, answer.shares.values())) or 1.0
        full = 1.0 if answer.measure == "attention weight" else largest
        shares = [(name, value / full, form.format(value)) for name, value in answer.shares.items()]
        parts.append(_section(title, _bars(shares)))
    return "".join(parts)


def plan_page(answer: StepAnswer, memory_bytes: int, sentences: Sequence[str], picture: bytes | None) -> str:
    """Return the verdict on a step, the plans from most to least memory, and the picture of the chosen one, a PNG."""
    kind = "af-yes" if answer.fits(memory_bytes) else "af-no"
    verdict = f'<p class="af-verdict {kind}">{escape(sentences[0])}</p>'
    rest = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences[1:])
    drawn = "" if picture is None else f'<img class="af-plan" alt="the plan" src="{data_uri("png", picture)}">'
    table = _plan_table(answer, memory_bytes)
    return f'<p class="af-note">{escape(str(answer.question))}</p>{verdict}{table}<ul>{rest}</ul>{drawn}'


def _enlarged(heat: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return a map `[H, W]` in 0..1 in the size of the picture."""
    large = Image.fromarray(heat).resize((PICTURE_PX, PICTURE_PX), Image.Resampling.BILINEAR)
    return np.asarray(large, dtype=np.float32)


def _cards(prediction: Prediction) -> list[str]:
    cards = []
    for task in ("type", "airline"):
        name, confidence = getattr(prediction, task), getattr(prediction, f"{task}_confidence")
        if name is not None:
            cards.append(_card(task.capitalize(), name, f"{confidence:.1%} sure", None))
    for field, (title, note) in _VALUES.items():
        value = getattr(prediction, field)
        if value is not None:
            cards.append(_card(title, f"{value:.2f}", note, value))
    return cards


def _card(title: str, value: str, note: str, share: float | None) -> str:
    bar = "" if share is None else _bar(share)
    return f"<div><h4>{title}</h4><strong>{escape(value)}</strong>{bar}<small>{escape(note)}</small></div>"


def _section(title: str, content: str) -> str:
    return f"<section><h3>{escape(title)}</h3>{content}</section>"


def _bars(rows: Sequence[tuple[str, float, str]]) -> str:
    """Draw rows of a name, a share of the full length in -1..1, and the text behind the bar."""
    cells = (f"<dt>{escape(name)}</dt><dd>{_bar(share)}<span>{text}</span></dd>" for name, share, text in rows)
    return f'<dl class="af-bars">{"".join(cells)}</dl>'


def _bar(share: float) -> str:
    kind = ' class="af-against"' if share < 0 else ""
    return f'<i class="af-bar"><i{kind} style="width:{100 * abs(share):.1f}%"></i></i>'


def _figure(caption: str, picture: Pixels) -> str:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=88)
    source = data_uri("jpeg", file.getvalue())
    return f'<figure><img alt="{escape(caption)}" src="{source}"><figcaption>{escape(caption)}</figcaption></figure>'


def _plan_table(answer: StepAnswer, memory_bytes: int) -> str:
    head = "<th>plan</th><th>peak</th><th>extra time</th><th>fits</th>"
    body = "".join(
        f"<tr><td>{escape(name)}</td><td>{format_bytes(point.peak_bytes)}</td><td>{point.time_ratio - 1:.0%}</td>"
        f"<td>{'yes' if point.peak_bytes <= memory_bytes else 'no'}</td></tr>"
        for name, point in answer.points.items()
    )
    return f'<div class="af-wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
