"""The report as a file, and in a real browser with the network off."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from aerofuse.comparison.comparison import ModelResults
from aerofuse.report import render
from aerofuse.report.render import render_page, write_page
from aerofuse.report.sources import PageSources
from tests.browser import OpenedPage, open_page
from tests.metrics import samples
from tests.report.page_sources import STAGES, data_report, mistakes_report, page_sources

SECTIONS = (
    "summary",
    "models",
    "gates",
    "learning",
    "confusion",
    "calibration",
    "regression",
    "mistakes",
    "costs",
    "data",
    "made",
)
HEADS = {"type": ["type"], "airline": ["airline"], "clarity": ["clarity", "quality"], "block": ["block", "quality"]}


def page_text(sources: PageSources) -> str:
    """The page without its charts."""
    return render_page(sources)[0]


class Tags(HTMLParser):
    """Every tag with its attributes, and the text outside scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._silent = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._silent = tag in {"script", "style"}

    def handle_endtag(self, tag: str) -> None:
        self._silent = False

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.text += f"{data} "

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def words(page: str) -> str:
    """The text of a page with single spaces."""
    return " ".join(Tags(page).text.split())


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> PageSources:
    return page_sources(tmp_path_factory.mktemp("sources"))


@pytest.fixture(scope="module")
def page(sources: PageSources) -> str:
    return page_text(sources)


@pytest.fixture(scope="module")
def open_text(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], OpenedPage]:
    """Opens a page given as text."""

    def opened(text: str, *flags: str) -> OpenedPage:
        folder = tmp_path_factory.mktemp("page")
        (folder / "index.html").write_text(text, encoding="utf-8")
        return open_page(folder / "index.html", folder / "profile", 1280, *flags)

    return opened


def with_script(page: str, script: str) -> str:
    """The page with a script of the test at its end."""
    before, _, after = page.rpartition("</body>")
    return f"{before}<script>{script}</script></body>{after}"


def test_every_section_is_there_and_in_the_contents(page: str) -> None:
    tags = Tags(page)
    assert [attributes["id"] for attributes in tags.all("section")] == list(SECTIONS)
    anchors = [href for attributes in tags.all("a") if (href := attributes["href"])]
    assert anchors[1 : 1 + len(SECTIONS)] == [f"#{name}" for name in SECTIONS]
    assert [name for name, _ in tags.tags if re.fullmatch("h[1-6]", name)][:2] == ["h1", "h2"]


def test_nothing_is_loaded_from_outside(page: str) -> None:
    tags = Tags(page)
    ids = {attributes["id"] for _, attributes in tags.tags if "id" in attributes}
    for name, attributes in tags.tags:
        for key in {"src", "href", "srcset", "action", "data", "poster"} & attributes.keys():
            value = attributes[key] or ""
            assert value.startswith("data:") or (value.startswith("#") and value[1:] in ids), (name, key, value[:80])
    assert not re.search(r"url\(|@import", page[page.index("<style>") : page.index("</style>")])


def test_every_picture_and_chart_says_what_it_shows(page: str) -> None:
    tags = Tags(page)
    pictures = tags.all("img")
    assert len(pictures) == 3 * 2 * 3 + 1
    assert all(len(attributes["alt"] or "") > 8 for attributes in pictures)
    charts = [attributes for attributes in tags.all("div") if "data-chart" in attributes]
    assert len(charts) == 32
    assert len({attributes["data-chart"] for attributes in charts}) == len(charts)
    assert all(attributes["role"] == "img" and len(attributes["aria-label"] or "") > 30 for attributes in charts)


def test_what_stands_in_data_cannot_become_markup(page: str) -> None:
    assert "Type &lt;B&gt; &amp; C" in page
    assert "Type <B>" not in page


def test_the_same_sources_give_the_same_page(sources: PageSources, page: str) -> None:
    assert page_text(sources) == page


def test_the_fastest_way_to_run_the_model_is_named(page: str) -> None:
    said = words(page)
    assert "Fastest for a batch of 1: ONNX Runtime." in said
    assert "torch.compile does not run here: no compiler" in said
    assert "names the same type and airline as the model in torch on 100.00 % of 120 test images" in said


def test_the_commit_of_the_code_is_named(sources: PageSources, page: str) -> None:
    assert f"Code of commit {'c0ffee' * 6} ." in words(page)
    changed = words(page_text(dataclasses.replace(sources, changed=True)))
    assert "with changes that were in no commit yet" in changed
    assert "in no git repository" in words(page_text(dataclasses.replace(sources, commit=None)))


def test_a_page_that_is_too_large_is_refused(
    sources: PageSources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_page(sources, tmp_path / "index.html")
    assert (tmp_path / "index.html").stat().st_size < 2_000_000
    monkeypatch.setattr(render, "MAX_BYTES", 100_000)
    with pytest.raises(ValueError, match=r"the report has \d+ bytes, 100000 are allowed"):
        write_page(sources, tmp_path / "other.html")
    assert not (tmp_path / "other.html").exists()


@pytest.mark.slow
def test_ten_thousand_photos_of_a_hundred_types_fit(tmp_path: Path) -> None:
    write_page(page_sources(tmp_path, many_results()), tmp_path / "index.html")
    assert (tmp_path / "index.html").stat().st_size < 6_000_000


def many_results() -> dict[str, ModelResults]:
    """Each photo 30 times over, of types with 14 names each."""
    results = {}
    for model, result in samples.results().items():
        table = pd.concat([result.predictions] * 84, ignore_index=True)
        number = np.arange(len(table)) % 14
        for column in ("type", "type_predicted"):
            table[column] = [f"{name} {k}" for name, k in zip(table[column], number, strict=True)]
        table["filename"] = [f"{k:05d}.jpg" for k in range(len(table))]
        results[model] = dataclasses.replace(result, predictions=table)
    return results


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_opens_offline_without_a_word_on_the_console(
    page: str, open_text: Callable[..., OpenedPage], scheme: str
) -> None:
    unfolded = page.replace("<details>", "<details open>")
    opened = open_text(unfolded, f"--blink-settings=preferredColorScheme={0 if scheme == 'dark' else 1}")
    assert opened.console == []
    assert 'data-charts="drawn"' in opened.dom
    drawn = re.findall(r'<(?:svg|canvas)[^>]*class="marks"', opened.dom)
    assert len(drawn) == 32
    colour = {"light": "#0072b2", "dark": "#56b4e9"}
    assert opened.dom.count(f'"{colour[scheme]}"') > 20


@pytest.mark.slow
def test_what_is_folded_away_is_drawn_when_it_is_opened(page: str, open_text: Callable[..., OpenedPage]) -> None:
    at_first = len(re.findall('class="marks"', open_text(page).dom))
    opening = "document.querySelectorAll('details').forEach(details => details.open = true)"
    opened = open_text(with_script(page, opening))
    assert opened.console == []
    assert at_first < len(re.findall('class="marks"', opened.dom)) == 32


@pytest.mark.slow
@pytest.mark.parametrize("width_px", [400, 1280])
def test_it_is_no_wider_than_the_window(page: str, tmp_path: Path, width_px: int) -> None:
    """In a frame, for a headless window has a least width of its own."""
    tell = "setTimeout(() => parent.postMessage(document.documentElement.scrollWidth, '*'), 9000)"
    (tmp_path / "page.html").write_text(with_script(page, tell), encoding="utf-8")
    (tmp_path / "frame.html").write_text(
        f"<!DOCTYPE html><iframe src='page.html' width='{width_px}' height='900' style='border: 0'></iframe>"
        "<p id='told'></p><script>addEventListener('message', e => told.textContent = 'width ' + e.data)</script>",
        encoding="utf-8",
    )
    dom = open_page(tmp_path / "frame.html", tmp_path / "profile", 1400).dom
    told = re.search(r"width (\d+)", dom)
    assert told is not None
    assert int(told[1]) <= width_px


@pytest.mark.slow
def test_the_console_is_heard(open_text: Callable[..., OpenedPage]) -> None:
    """The tests above would not find an error otherwise."""
    assert "nowhere is not defined" in open_text("<script>nowhere()</script>").console[0]
    assert open_text("<script>console.warn('careful')</script>").console == ["careful"]


def without(results: dict[str, ModelResults], *tasks: str, heads: bool) -> dict[str, ModelResults]:
    """The results without labels of some tasks, and without their `heads` or with."""
    changed = {}
    for model, result in results.items():
        table = result.predictions.copy()
        metrics = {name: value for name, value in result.metrics.items() if name.partition("_")[0] not in tasks}
        for task in tasks:
            if heads and task in table:
                table[task] = None if task in {"type", "airline"} else np.nan
                metrics[f"{task}_labelled"] = 0
            elif not heads:
                table = table[[name for name in table if str(name).partition("_")[0] not in HEADS[task]]]
        changed[model] = dataclasses.replace(result, metrics=metrics, predictions=table)
    return changed


@pytest.mark.slow
@pytest.mark.parametrize("heads", [True, False])
def test_data_like_fgvc(tmp_path: Path, open_text: Callable[..., OpenedPage], heads: bool) -> None:
    """No labels of airline, clarity and block: whether the models have such heads or not."""
    mistakes = mistakes_report(tmp_path / "mistakes")
    for task in ("clarity", "block"):
        mistakes["mistakes"][task] = []
    if not heads:
        mistakes["mistakes"] = {"type": mistakes["mistakes"]["type"]}
    results = without(samples.results(), "airline", "clarity", "block", heads=heads)
    history = page_sources(tmp_path).histories["train_stage_a"][["epoch", "train_loss", "score", "type_top1"]]
    text = page_text(
        page_sources(
            tmp_path,
            results,
            data=data_report(("type",)),
            mistakes=mistakes,
            histories={stage: history.assign(airline_top1=np.nan) for stage in STAGES},
        )
    )
    said = words(text)
    for task in ("airline", "clarity", "block"):
        assert f"No test image has a label of {task}." in said
        assert f"No photo has a label of {task}: that head learned nothing" in said
    assert ("No test photo has a label of clarity." if heads else "The hybrid has no head for clarity.") in said
    assert "nan" not in said.lower().split()
    assert open_text(text).console == []


@pytest.mark.slow
def test_no_label_at_all(tmp_path: Path, open_text: Callable[..., OpenedPage]) -> None:
    results = without(samples.results(), "type", "airline", "clarity", "block", heads=True)
    mistakes = mistakes_report(tmp_path / "mistakes", count=0)
    text = page_text(page_sources(tmp_path, results, data=data_report(()), mistakes=mistakes))
    said = words(text)
    assert "The test images have no labels, so no model can be called better." in said
    assert "No test image has a label of type." in said
    assert "No labelled test photo has a wrong type." in said
    assert open_text(text).console == []


def test_a_model_without_mistakes(tmp_path: Path) -> None:
    sources = page_sources(tmp_path, samples.results(hybrid_wrong=0), mistakes=mistakes_report(tmp_path, count=0))
    said = words(page_text(sources))
    assert "It takes no type for another." in said
    assert "No labelled test photo has a wrong type." in said
    none = page_sources(
        tmp_path, mistakes=mistakes_report(tmp_path, count=0), params={**sources.params, "explain": {"mistakes": 0}}
    )
    assert "None are to be shown: explain.mistakes is 0." in words(page_text(none)).replace(" .", ".")


def test_mistakes_with_the_weights_of_an_attention_fusion(tmp_path: Path, page: str) -> None:
    text = page_text(page_sources(tmp_path, mistakes=mistakes_report(tmp_path / "mistakes", "attention")))
    assert 'aria-label="Fusion weights: CNN 75 %, transformer 25 %"' in text
    assert "The bar shows the weights that the fusion gives" in words(text)
    assert "Fusion weights" not in page
    assert "The fusion concat has no weights to show." in words(page)
    assert "transformer +0.25" in words(page)


def test_maps_that_are_no_better_than_a_guess_are_called_so(tmp_path: Path, page: str) -> None:
    mistakes = mistakes_report(tmp_path / "mistakes")
    mistakes["occlusion_test"]["effects"]["transformer"] = {"hottest": 0.4, "coldest": 0.5}
    said = words(page_text(page_sources(tmp_path, mistakes=mistakes)))
    assert "falls by 3.0 (CNN) and 0.4 (transformer)" in said
    assert "The maps of the transformer are thus no better than a guess." in said
    assert "no better than a guess" not in page


@pytest.mark.slow
def test_what_was_not_measured_is_said(tmp_path: Path, page: str) -> None:
    assert "without a GPU: there is no memory of a GPU to measure" in words(page)
    sources = page_sources(tmp_path)
    memory: dict[str, Any] = dict(sources.memory) | {"train_stage_a": None}
    record = sources.memory["train_stage_c"]
    assert record is not None
    memory["train_stage_c"] = dataclasses.replace(record, peak_bytes=None)
    gpu = {stage: dataclasses.replace(times, peak_memory_bytes=3 * 10**9) for stage, times in sources.training.items()}
    said = words(page_text(dataclasses.replace(sources, memory=memory, training=gpu)))
    assert "No memory was recorded for hybrid, phase A." in said
    assert "hybrid, phase C not measured, predicted 70.0 MB" in page_text(dataclasses.replace(sources, memory=memory))
    assert "without a GPU" not in said
    none = page_text(dataclasses.replace(sources, memory=dict.fromkeys(STAGES)))
    assert 'data-chart="memory"' not in none
    sheetless = page_text(dataclasses.replace(sources, contact_sheet=tmp_path / "none.png"))
    assert "There is no sheet of photos." in words(sheetless)


@pytest.mark.slow
def test_calibration_is_shown_before_and_after(tmp_path: Path, open_text: Callable[..., OpenedPage]) -> None:
    results = {}
    for model, result in samples.results().items():
        metrics = dict(result.metrics)
        for task in ("type", "airline"):
            if f"{task}_top1" in metrics:
                metrics |= {f"{task}_ece": 0.0123, f"{task}_ece_uncalibrated": 0.0456}
        results[model] = dataclasses.replace(result, metrics=metrics)
    text = page_text(page_sources(tmp_path, results))
    assert "1.23 % 4.56 %" in words(text)
    opened = open_text(text)
    assert opened.console == []
    assert opened.dom.count(">before calibration<") >= 2
