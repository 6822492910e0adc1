"""The page: a tab to try photos on, a tab to ask what a training step takes."""

from __future__ import annotations

import functools
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path

import gradio

from aerofuse.backbones.families import FAMILIES
from aerofuse.data.photo import UnreadablePhotoError
from aerofuse.demo import fragments
from aerofuse.demo.fragments import PhotoAnswers
from aerofuse.memory.step import Precision
from aerofuse.plotting.plan import draw_plan
from aerofuse.training.step_question import StepAnswer, StepQuestion

NO_BACKBONE = "none"
_KEPT_S = 3600  # how long dropped photos stay in Gradio's folder of temporary files
_NOTE = '<p class="af-note">{}</p>'
_WAITING = _NOTE.format("The answer appears here.")


def make_page(answers: PhotoAnswers, examples: Sequence[tuple[Path, str]]) -> gradio.Blocks:
    """Build the page with a model and example photos, each with its type, ready to be launched."""
    with gradio.Blocks(title="Aerofuse", analytics_enabled=False, delete_cache=(_KEPT_S, _KEPT_S)) as page:
        gradio.Markdown(
            "# Aerofuse\nWhat is on a photo of an aircraft, and what training such a model takes.", elem_id="af-head"
        )
        with gradio.Tab("Photo"):
            _photo_tab(answers, examples)
        with gradio.Tab("Memory"):
            _memory_tab()
    return page


def _photo_tab(answers: PhotoAnswers, examples: Sequence[tuple[Path, str]]) -> None:
    file = gradio.File(label="A photo", file_types=["image"], height=140, elem_id="photo")
    samples = None
    if examples:
        samples = gradio.Dataset(
            components=[gradio.Image(render=False)],
            samples=[[str(path)] for path, _ in examples],
            sample_labels=[name for _, name in examples],
            label="Or one of the test split, named by what it shows",
            layout="gallery",
            elem_id="examples",
        )
    result = gradio.HTML(_WAITING, elem_id="answer")

    def answer(path: str | None) -> str:
        if path is None:
            return _WAITING
        try:
            return fragments.photo_page(answers.answer(Path(path)))
        except UnreadablePhotoError as error:
            return fragments.message(f"{Path(path).name}: {error}")

    one_at_a_time = {"concurrency_limit": 1, "concurrency_id": "photo", "api_visibility": "private"}
    file.change(answer, file, result, **one_at_a_time)
    if samples is not None:
        samples.click(lambda sample: answer(sample[0]), samples, result, **one_at_a_time)


def _memory_tab() -> None:
    names = {name: family for family in FAMILIES.values() for name in family.all_variants}
    of_images = [name for name, family in names.items() if family.input_dims == 4]
    with gradio.Row(elem_id="backbones"):
        first = gradio.Dropdown(list(names), value="convnext_base", label="Backbone", elem_id="first")
        second = gradio.Dropdown(
            [NO_BACKBONE, *of_images], value="swin_base_patch4_window7_224", label="Fused with", elem_id="second"
        )
    with gradio.Row():
        image_size = gradio.Number(224, label="Image size, px", precision=0, min_width=120, elem_id="image-size")
        batch_size = gradio.Number(16, label="Batch", precision=0, min_width=120, elem_id="batch-size")
        memory = gradio.Number(8, label="Memory, GiB", min_width=120, elem_id="memory")
        precision = gradio.Radio(["float32", "bf16"], value="float32", label="Precision", min_width=200)
    button = gradio.Button("Does it fit?", variant="primary", elem_id="ask")
    result = gradio.HTML(
        _NOTE.format("Nothing of the model's size is allocated. A first answer takes up to a minute."), elem_id="plan"
    )
    inputs = [first, second, image_size, batch_size, precision, memory]
    button.click(plan_step, inputs, result, api_visibility="private", concurrency_limit=1)


def plan_step(
    first: str,
    second: str,
    image_size_px: float | None,
    batch_size: float | None,
    precision: Precision,
    memory_gib: float | None,
    progress: gradio.Progress = gradio.Progress(),  # noqa: B008  # by which Gradio knows to fill it in
) -> str:
    """Return the page's answer to a question as HTML; a question that makes no sense gets the reason."""
    try:
        memory_bytes = int(2**30 * _within("memory", memory_gib, 0.001, 1024))
        backbones = (first,) if second == NO_BACKBONE else (first, second)
        size = int(_within("image size", image_size_px, 1, 1024))
        question = StepQuestion(backbones, size, int(_within("batch", batch_size, 1, 4096)), precision)
        progress(0.1, desc="counting the step, and planning it")
        answer = _answer(question)
        if not answer.fits(memory_bytes):
            return fragments.plan_page(answer, memory_bytes, [answer.refusal(memory_bytes)], None)
        progress(0.7, desc="planning for that memory")
        plan = answer.plan(memory_bytes)
        progress(0.9, desc="drawing the plan")
        with tempfile.TemporaryDirectory() as folder:
            draw_plan(plan, Path(folder) / "plan.png")
            picture = (Path(folder) / "plan.png").read_bytes()
        return fragments.plan_page(answer, memory_bytes, answer.describe(plan, memory_bytes), picture)
    except ValueError as error:
        return fragments.message(str(error))


@functools.lru_cache(maxsize=8)
def _answer(question: StepQuestion) -> StepAnswer:
    """Return the answer, cached: the same step is often asked about with another memory."""
    return StepAnswer(question)


def _within(name: str, value: float | None, least: float, largest: float) -> float:
    if value is None or not math.isfinite(value) or not least <= value <= largest:
        found = "" if value is None else f", not {value:g}"
        raise ValueError(f"{name} is a number from {least:g} to {largest:g}{found}")
    return value
