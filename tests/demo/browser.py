"""A headless Chromium that a test drives, by the DevTools protocol; it sees no network but this machine."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp

from tests.browser import find_browser

_START_TIMEOUT_S = 60.0
_ANSWER_TIMEOUT_S = 60.0


class Browser:
    """One page in a browser of its own. `problems` are errors on the console, `addresses` what the page asked for."""

    def __init__(self, folder: Path) -> None:
        program = find_browser()
        settings = [
            "--headless=new",
            "--no-sandbox",  # root has none
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
            "--remote-debugging-port=0",
            f"--user-data-dir={folder / 'profile'}",
        ]
        self.problems: list[str] = []
        self.addresses: list[str] = []
        self._calls = 0
        self._folder = folder
        self._runner = asyncio.Runner()
        with (folder / "chromium.log").open("wb") as log:
            self._process = subprocess.Popen([program, *settings, "about:blank"], stdout=log, stderr=log)
        try:
            self._runner.run(self._connect())
            for domain in ("Page", "Runtime", "Log", "Network", "DOM"):
                self.call(f"{domain}.enable")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the browser and all that it has started."""
        with contextlib.suppress(Exception):
            self.call("Browser.close")
        if hasattr(self, "_session"):
            self._runner.run(self._session.close())
        self._runner.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def call(self, method: str, **arguments: Any) -> dict[str, Any]:
        """What the browser answers to a command of the protocol."""
        answer: dict[str, Any] = self._runner.run(asyncio.wait_for(self._call(method, arguments), _ANSWER_TIMEOUT_S))
        return answer

    def open(self, address: str, *, width: int = 1200, height: int = 900, phone: bool = False) -> None:
        """Go to a page, in a window of that size in pixels."""
        self.resize(width, height, phone=phone)
        self.call("Page.navigate", url=address)

    def resize(self, width: int, height: int, *, phone: bool = False) -> None:
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)

    def ask(self, script: str) -> Any:
        """The value of a JavaScript expression, as JSON has it."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, f"{script}: {answer['exceptionDetails']}"
        return answer["result"].get("value")

    def wait_for(self, script: str, timeout_s: float = 30.0) -> Any:
        """The value of a JavaScript expression once it is true."""
        give_up = time.monotonic() + timeout_s
        while not (value := self.ask(script)):
            assert time.monotonic() < give_up, f"not in {timeout_s} s: {script}\n{self.ask('document.body.innerText')}"
            time.sleep(0.1)
        return value

    def choose_file(self, selector: str, file: Path) -> None:
        """Give a file to an input for files."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", files=[str(file)], nodeId=node)

    def picture(self, file: Path) -> Path:
        """The whole page as PNG."""
        answer = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(answer["data"]))
        return file

    async def _connect(self) -> None:
        port_file = self._folder / "profile" / "DevToolsActivePort"
        give_up = time.monotonic() + _START_TIMEOUT_S
        while not (port_file.is_file() and port_file.read_text().count("\n")):
            if self._process.poll() is not None or time.monotonic() > give_up:
                raise RuntimeError(
                    f"no Chromium: {(self._folder / 'chromium.log').read_text(errors='replace')[-2000:]}"
                )
            await asyncio.sleep(0.1)
        address = f"http://127.0.0.1:{port_file.read_text().splitlines()[0]}"
        self._session = aiohttp.ClientSession()
        async with self._session.put(f"{address}/json/new") as answer:
            page = await answer.json(content_type=None)
        self._socket = await self._session.ws_connect(page["webSocketDebuggerUrl"], max_msg_size=0)

    async def _call(self, method: str, arguments: dict[str, Any]) -> dict[str, Any]:
        self._calls += 1
        await self._socket.send_json({"id": self._calls, "method": method, "params": arguments})
        while True:
            message = json.loads((await self._socket.receive()).data)
            if message.get("id") == self._calls:
                assert "error" not in message, f"{method}: {message['error']}"
                result: dict[str, Any] = message["result"]
                return result
            self._note(message)

    def _note(self, message: dict[str, Any]) -> None:
        method, about = message.get("method"), message.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.problems.append(json.dumps(about["exceptionDetails"]))
        elif (method == "Runtime.consoleAPICalled" and about["type"] in ("error", "assert")) or (
            method == "Log.entryAdded" and about["entry"]["level"] == "error"
        ):
            self.problems.append(json.dumps(about))
        elif method == "Network.requestWillBeSent":
            self.addresses.append(about["request"]["url"])
