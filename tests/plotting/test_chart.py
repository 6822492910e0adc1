from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageColor

from aerofuse.plotting.chart import Chart, chart_style, page_colours, picture_style, save_png, write_picture
from aerofuse.report.render import write_page
from tests.report.page_sources import page_sources


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("report")


@pytest.fixture(scope="module")
def charts(folder: Path) -> list[Chart]:
    charts = write_page(page_sources(folder), folder / "index.html")
    for chart in charts:
        write_picture(folder / "charts" / f"{chart.name}.png", [[chart]])
    return charts


@pytest.mark.slow
def test_every_chart_of_the_page_is_a_picture_with_something_on_it(folder: Path, charts: list[Chart]) -> None:
    page = (folder / "index.html").read_text(encoding="utf-8")
    assert page.count('data-chart="') == len(charts) > 20
    assert {file.stem for file in (folder / "charts").iterdir()} == {chart.name for chart in charts}
    for chart in charts:
        with Image.open(folder / "charts" / f"{chart.name}.png") as picture:
            assert picture.width >= 1200, chart.name
            assert len(picture.convert("RGB").getcolors(2**20) or ()) > 20, chart.name


@pytest.mark.parametrize("chart", ["latency", "parameters"])
def test_models_have_their_colours(folder: Path, charts: list[Chart], chart: str) -> None:
    assert chart in {drawn.name for drawn in charts}
    with Image.open(folder / "charts" / f"{chart}.png") as picture:
        pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    for colour in picture_style()["range"]["category"]:
        assert (pixels == ImageColor.getrgb(colour)).all(axis=1).sum() > 50, colour


def test_the_same_charts_give_the_same_bytes(folder: Path, charts: list[Chart]) -> None:
    for chart in charts[:2]:
        write_picture(folder / "again.png", [[chart]])
        assert (folder / "again.png").read_bytes() == (folder / "charts" / f"{chart.name}.png").read_bytes()


def test_charts_stand_in_rows_under_a_title(charts: list[Chart], tmp_path: Path) -> None:
    sizes = {}
    for name, rows in {"one": [charts[:1]], "row": [charts[:2]], "column": [charts[:1], charts[1:2]]}.items():
        write_picture(tmp_path / f"{name}.png", rows, title="A title")
        sizes[name] = Image.open(tmp_path / f"{name}.png").size
    assert sizes["row"][0] > 0.9 * sizes["one"][0]
    assert sizes["column"][1] > 1.7 * sizes["one"][1]


def test_every_colour_of_the_style_is_one_of_the_page() -> None:
    assert "--" in str(chart_style())
    assert "--" not in str(picture_style())
    assert page_colours("light").keys() == page_colours("dark").keys()


def test_a_picture_that_is_too_large_is_reduced_or_refused(tmp_path: Path) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8))
    save_png(noise, tmp_path / "small.png", max_bytes=8_000)
    assert (tmp_path / "small.png").stat().st_size <= 8_000
    with pytest.raises(ValueError, match="cannot be a PNG of 10 bytes"):
        save_png(noise, tmp_path / "none.png", max_bytes=10)
    assert not (tmp_path / "none.png").exists()
