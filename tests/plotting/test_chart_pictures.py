from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageColor

from aerofuse.plotting.chart_pictures import write_chart_pictures
from aerofuse.plotting.chart_style import light_chart_style, read_chart_style
from aerofuse.plotting.charts import Chart
from aerofuse.report.render import write_page
from tests.report.page_sources import page_sources


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("report")


@pytest.fixture(scope="module")
def charts(folder: Path) -> list[Chart]:
    charts = write_page(page_sources(folder), folder / "index.html")
    write_chart_pictures(charts, folder / "charts")
    return charts


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
    for colour in light_chart_style()["range"]["category"]:
        assert (pixels == ImageColor.getrgb(colour)).all(axis=1).sum() > 50, colour


def test_the_same_charts_give_the_same_bytes(folder: Path, charts: list[Chart]) -> None:
    write_chart_pictures(charts[:2], folder / "again")
    for file in (folder / "again").iterdir():
        assert file.read_bytes() == (folder / "charts" / file.name).read_bytes()


def test_every_colour_of_the_style_is_one_of_the_page() -> None:
    assert "--" in str(read_chart_style())
    assert "--" not in str(light_chart_style())
