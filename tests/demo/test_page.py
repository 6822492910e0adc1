"""The page itself, in a real browser that sees no network."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

import aerofuse
from aerofuse.demo.fragments import PhotoAnswers
from tests.demo.browser import Browser
from tests.imports import ROOT
from tests.inference.small_packages import write_small_package
from tests.serving.photos import write_photo
from tests.tracking.servers import Server, free_port

gradio = pytest.importorskip("gradio", reason="the extra `demo` is not installed; `make demo` installs it")
pytestmark = pytest.mark.slow

_CODE = "import sys; from aerofuse.cli.main import main; sys.exit(main(sys.argv[1:]))"
# Until what is under way has been drawn.
_A_MOMENT = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done, 50))))"
_UPLOAD = "#photo input[type=file]"


class DemoServer(Server):
    """`aerofuse demo` on a free port."""

    def __init__(self, folder: Path, *options: str) -> None:
        super().__init__("demo", folder)
        self._port = free_port()
        self.address = f"http://127.0.0.1:{self._port}"
        self._command = [sys.executable, "-c", _CODE, "demo", "--port", str(self._port), *options]

    def start(self) -> None:
        paths = [str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
        settings = {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
        self.launch(self._command, self._is_up, 240, env=os.environ | settings)

    def _is_up(self) -> bool:
        with contextlib.suppress(OSError), urllib.request.urlopen(self.address, timeout=2) as answer:
            return bool(answer.status == 200)
        return False


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_package(tmp_path_factory.mktemp("models") / "aerofuse", "attention")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, package: Path, prepared_folder: Path) -> Iterator[DemoServer]:
    server = DemoServer(tmp_path_factory.mktemp("demo"), "--model", str(package), "--examples", str(prepared_folder))
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("browser")) as browser:
        yield browser


@pytest.fixture
def page(server: DemoServer, browser: Browser) -> Iterator[Browser]:
    """The page, freshly opened; nothing goes wrong on it, and it asks nobody else for anything."""
    browser.problems.clear()
    browser.addresses.clear()
    browser.open(server.address)
    browser.wait_for(f"document.querySelector('{_UPLOAD}') !== null", 60)
    yield browser
    assert browser.problems == []
    assert [
        address for address in browser.addresses if not address.startswith((server.address, "data:", "blob:"))
    ] == []


def open_memory_tab(page: Browser) -> None:
    page.ask("[...document.querySelectorAll('button[role=tab]')].find(tab => tab.innerText.trim() == 'Memory').click()")
    page.wait_for(
        "!!document.querySelector('#ask')?.offsetParent && document.querySelector('#memory input').value == 8"
    )
    page.ask(_A_MOMENT)  # Gradio fills a tab in when it is first opened


def write(page: Browser, selector: str, text: str) -> None:
    """Into an input, as a person does."""
    element = f"document.querySelector('{selector} input')"
    page.ask(f"{element}.focus(), {element}.select()")
    page.call("Input.insertText", text=text)
    if not text:
        page.call("Input.dispatchKeyEvent", type="keyDown", key="Delete", code="Delete", windowsVirtualKeyCode=46)
    page.ask(f"{element}.blur()")
    page.ask(_A_MOMENT)  # what Gradio asks the server with follows the input


def offered(page: Browser, selector: str, text: str) -> list[str]:
    """What a list to choose from offers for the beginning of a name."""
    element = f"document.querySelector('{selector} input')"
    page.ask(f"{element}.focus(), {element}.select()")
    page.call("Input.insertText", text=text)
    page.ask(_A_MOMENT)
    names: list[str] = page.ask(f"[...document.querySelectorAll('{selector} li')].map(name => name.innerText.trim())")
    return [name.removeprefix("\u2713").strip() for name in names]


def choose(page: Browser, selector: str, name: str) -> None:
    """Write a name into a list to choose from, and take what is offered."""
    assert name in offered(page, selector, name)
    option = f"[...document.querySelectorAll('{selector} li')].find(option => option.innerText.trim() == '{name}')"
    page.ask(f"{option}.dispatchEvent(new MouseEvent('mousedown', {{bubbles: true, cancelable: true}}))")
    page.wait_for(f"document.querySelector('{selector} input').value == '{name}'")


def ask_for_plan(page: Browser) -> str:
    """What the page says in the end."""
    page.ask("document.querySelector('#plan .prose').innerHTML = '', document.querySelector('#ask').click()")
    page.wait_for("document.querySelector('#plan .af-verdict, #plan .af-problem') !== null", 120)
    return str(page.ask("document.querySelector('#plan').innerText"))


def test_a_photo(page: Browser, package: Path, tmp_path: Path) -> None:
    photo = write_photo(tmp_path / "photo.jpg", seed=3)
    page.choose_file(_UPLOAD, photo)
    page.wait_for("document.querySelector('#answer .af-cards') !== null")
    said = page.ask("document.querySelector('#answer').innerText")
    prediction = aerofuse.load(package).predict(photo)
    assert prediction.type is not None
    for value in (prediction.type, f"{prediction.type_confidence:.1%} sure", prediction.airline):
        assert value in said
    for number in (prediction.clarity, prediction.block, prediction.quality_score):
        assert f"{number:.2f}" in said
    for candidate in prediction.type_top5:
        assert f"{candidate.name}\n{candidate.confidence:.1%}" in said.replace("\n\n", "\n")
    assert "What the fusion gives each branch" in said
    pictures = page.ask(
        "[...document.querySelectorAll('#answer figure img')].map(picture => [picture.alt, picture.naturalWidth])"
    )
    assert [name.split()[0] for name, _ in pictures] == ["the", "convnext_thin", "swin_thin"]
    assert {width for _, width in pictures} == {384}


def test_an_example(page: Browser) -> None:
    page.ask("document.querySelector('#examples button.gallery-item, #examples .gallery button').click()")
    page.wait_for("document.querySelectorAll('#answer figure img').length == 3")
    assert "Likeliest types" in page.ask("document.querySelector('#answer').innerText")


def test_a_bad_photo(page: Browser, tmp_path: Path) -> None:
    bad = tmp_path / "<b>bad.jpg"
    bad.write_bytes(b"\xff\xd8 nothing")
    page.choose_file(_UPLOAD, bad)
    page.wait_for("document.querySelector('#answer [role=alert]') !== null")
    assert "bad.jpg: not an image" in page.ask("document.querySelector('#answer').innerText")


def test_it_fits_with_a_plan(page: Browser) -> None:
    open_memory_tab(page)
    choose(page, "#first", "resnet18")
    choose(page, "#second", "none")
    write(page, "#image-size", "64")
    write(page, "#memory", "0.3")
    said = ask_for_plan(page)
    assert "resnet18, 16 x 3 x 64 x 64, float32, AdamW" in said
    assert "It fits into 307 MiB" in said
    assert "least memory" in said
    assert page.ask("document.querySelector('#plan img').naturalWidth") > 500


def test_it_does_not_fit(page: Browser) -> None:
    open_memory_tab(page)
    choose(page, "#first", "resnet18")
    choose(page, "#second", "none")
    write(page, "#image-size", "64")
    write(page, "#memory", "0.01")
    assert "It does not fit into 10.2 MiB; no batch would" in ask_for_plan(page)


@pytest.mark.parametrize(
    ("selector", "value", "reason"),
    [
        ("#batch-size", "0", "batch is a number from 1 to 4096, not 0"),
        ("#batch-size", "", "batch is a number from 1 to 4096"),
        ("#image-size", "-5", "image size is a number from 1 to 1024, not -5"),
        ("#memory", "0", "memory is a number from 0.001 to 1024, not 0"),
    ],
)
def test_nonsense(page: Browser, selector: str, value: str, reason: str) -> None:
    open_memory_tab(page)
    write(page, selector, value)
    assert reason in ask_for_plan(page)


def test_what_takes_clips_is_not_offered_for_a_hybrid(page: Browser) -> None:
    open_memory_tab(page)
    assert "swin3d_t" in offered(page, "#first", "swin3d")
    assert "swin_tiny_patch4_window7_224" in offered(page, "#second", "swin")
    assert "swin3d_t" not in offered(page, "#second", "swin3d")


def test_on_a_phone(page: Browser, server: DemoServer, tmp_path: Path) -> None:
    page.open(server.address, width=390, height=800, phone=True)
    page.wait_for(f"document.querySelector('{_UPLOAD}') !== null", 60)
    page.choose_file(_UPLOAD, write_photo(tmp_path / "photo.jpg"))
    page.wait_for("document.querySelectorAll('#answer figure img').length == 3")
    assert page.ask("document.documentElement.scrollWidth") <= 390


def test_without_prepared_photos(package: Path) -> None:
    page = importlib.import_module("aerofuse.demo.page").make_page(PhotoAnswers(package), [])
    kinds = {type(block) for block in page.blocks.values()}
    assert gradio.File in kinds
    assert gradio.Dataset not in kinds
