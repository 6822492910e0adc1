"""Opening a page in a real browser, without a network."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_CONSOLE = re.compile(r'CONSOLE[:(]\d+\)?\] "(.*)", source: ')
_PATIENCE_MS = 30_000


@dataclass(frozen=True)
class OpenedPage:
    """The page as it stands after its scripts ran, and what it wrote to the console."""

    dom: str
    console: list[str]


def find_browser() -> str:
    """The program. Skips the test where there is none, except in CI, which installs one."""
    browser = next((found for name in _BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        assert "CI" not in os.environ, f"CI needs one of {', '.join(_BROWSERS)}"
        pytest.skip(f"no browser: none of {', '.join(_BROWSERS)}; Debian's package is called chromium")
    return browser


def open_page(page: Path, profile: Path, width_px: int = 1280, *flags: str) -> OpenedPage:
    """Open an HTML file. Skips the test where there is no browser: see `find_browser`."""
    done = subprocess.run(
        [
            find_browser(),
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            f"--user-data-dir={profile}",
            "--host-resolver-rules=MAP * ~NOTFOUND",
            "--enable-logging=stderr",
            f"--virtual-time-budget={_PATIENCE_MS}",
            f"--window-size={width_px},900",
            *flags,
            "--dump-dom",
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    return OpenedPage(done.stdout, _CONSOLE.findall(done.stderr))
