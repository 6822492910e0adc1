"""`dvc plots show` writes a page that needs nothing from the network."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tools.dvc_plots_page import install_offline_template, offline_template

LOADED_FROM_OUTSIDE = re.compile(r"<(script|link|img)\b[^>]*\b(src|href)\s*=\s*[\"']?(https?:)?//", re.IGNORECASE)


@pytest.fixture(scope="module")
def template() -> str:
    return offline_template()


def dvc(folder: Path, *arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=folder, check=True, capture_output=True)


def test_the_template_has_each_of_dvcs_placeholders_once(template: str) -> None:
    assert template.count("{plot_divs}") == 1
    assert template.count("{refresh_tag}") == 1
    assert "{scripts}" not in template, "DVC would put its tags there that load vega from the network"


def test_the_template_brings_the_drawing_library(template: str) -> None:
    assert LOADED_FROM_OUTSIDE.search(template) is None
    assert "window.vegaEmbed" in template
    assert template.count("</script") == 1, "the library must not end its own script tag"
    assert template.index("window.vegaEmbed") < template.index("{plot_divs}")


def test_the_pattern_finds_what_dvc_would_load() -> None:
    vega = importlib.import_module("dvc_render.vega")
    assert LOADED_FROM_OUTSIDE.search(vega.VegaRenderer.SCRIPTS)


def test_dvc_writes_its_page_with_it(tmp_path: Path) -> None:
    dvc(tmp_path, "init", "--no-scm")
    (tmp_path / "history.csv").write_text("epoch,loss\n1,2.0\n2,1.0\n")
    (tmp_path / "dvc.yaml").write_text("plots:\n  - history.csv: {x: epoch, y: loss}\n")
    installed = install_offline_template(tmp_path)
    assert installed == tmp_path / ".dvc" / "plots" / "offline.html"
    dvc(tmp_path, "plots", "show")
    page = (tmp_path / "dvc_plots" / "index.html").read_text(encoding="utf-8")
    assert LOADED_FROM_OUTSIDE.search(page) is None
    assert "vegaEmbed('#history_csv', spec)" in page
    assert "{plot_divs}" not in page
    assert (tmp_path / ".dvc" / "config").read_text(encoding="utf-8").count("html_template") == 0


def test_a_folder_without_dvc_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no DVC repository"):
        install_offline_template(tmp_path)
