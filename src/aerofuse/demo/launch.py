"""Start the page that tries a model, with example photos."""

from __future__ import annotations

import importlib
import os
import socket
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from aerofuse.data.store import PhotoStore
from aerofuse.demo.fragments import STYLES, PhotoAnswers

_ADDRESS = "127.0.0.1"


def run_demo(model: Path, prepared: Path, port: int, is_ready: Callable[[str], object]) -> None:
    """Serve the page until Ctrl+C; `is_ready` is called with its address.

    Raises `ValueError` where Gradio is missing or the port is taken, and what `aerofuse.load` raises.
    """
    if find_spec("gradio") is None:
        raise ValueError("the page needs Gradio: pip install 'aerofuse[demo]'")
    _check_free(port)
    answers = PhotoAnswers(model)
    # Before Gradio is imported.
    os.environ.update({"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1"})
    gradio = importlib.import_module("gradio")
    page = importlib.import_module("aerofuse.demo.page")
    with tempfile.TemporaryDirectory(prefix="aerofuse-demo-") as folder:
        blocks = page.make_page(answers, write_examples(prepared, Path(folder)))
        blocks.launch(
            server_name=_ADDRESS,
            server_port=port,
            share=False,
            quiet=True,
            prevent_thread_lock=True,
            ssr_mode=False,
            run_history=False,
            footer_links=[],
            allowed_paths=[folder],
            max_file_size=20 * 2**20,
            css_paths=STYLES,
            # The machine's own fonts; others would come from the network.
            theme=gradio.themes.Default(
                primary_hue="blue", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
            ),
        )
        is_ready(f"http://{_ADDRESS}:{port}")
        blocks.block_thread()


def write_examples(prepared: Path, folder: Path) -> list[tuple[Path, str]]:
    """Write some test photos of different types to `folder`, and return their files and types.

    Without a test split in `prepared` there are none.
    """
    split = prepared / "test.arrow"
    if not split.is_file():
        return []
    photos = PhotoStore(split)
    types = photos.labels["typename"].to_pylist()
    first = {name: number for number, name in reversed(list(enumerate(types))) if name is not None}
    examples = []
    for name, number in sorted(first.items())[:6]:
        file = folder / f"{number}.jpg"
        file.write_bytes(photos.encoded(number))
        examples.append((file, name))
    return examples


def _check_free(port: int) -> None:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((_ADDRESS, port))
        except (OSError, OverflowError) as error:
            reason = error.strerror if isinstance(error, OSError) else "there are 65535"
            raise ValueError(f"port {port} cannot be used ({reason}); name another one with --port") from None
