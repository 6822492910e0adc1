"""A stand-in of the Hugging Face hub on this machine: what huggingface_hub asks for when timm loads weights."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import timm
import torch
from safetensors.torch import save
from torch import Tensor

_MODEL_PAGE = re.compile(r"/api/models/(?P<repository>[^/]+/[^/]+)(/revision/(?P<revision>[^/]+))?")
_FILE = re.compile(r"/(?P<repository>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/model\.safetensors")


@dataclass
class HostedModel:
    """Random weights as one commit of a repository, and what goes wrong when they are sent.

    The hub says the size and the SHA-256 of `content`; it sends the bytes of `sent`, and breaks the connection off
    once, `breaks_off_after` so many of them.
    """

    name: str
    seed: int = 0
    repository: str = field(init=False)  # where timm looks for them
    classifier: str = field(init=False)
    state: dict[str, Tensor] = field(init=False)
    content: bytes = field(init=False)
    sent: bytes = field(init=False)
    breaks_off_after: int | None = None

    def __post_init__(self) -> None:
        torch.manual_seed(self.seed)
        config = timm.get_pretrained_cfg(self.name)
        assert config is not None
        self.repository, self.classifier = str(config.hf_hub_id), str(config.classifier)
        self.state = timm.create_model(self.name).state_dict()
        self.content = self.sent = save(self.state)

    @property
    def sha256(self) -> str:
        """Return the hash that the hub says."""
        return hashlib.sha256(self.content).hexdigest()

    @property
    def commit(self) -> str:
        """Return a hash that has the length of a commit's."""
        return self.sha256[:40]

    @property
    def features_state(self) -> dict[str, Tensor]:
        """Return the weights without the classifier's, which no backbone has."""
        return {key: tensor for key, tensor in self.state.items() if not key.startswith(f"{self.classifier}.")}


@dataclass
class HubServer:
    """Where the hub answers, its models, the newest commit of each last, and all that it was asked."""

    url: str
    models: list[HostedModel]
    requests: list[str] = field(default_factory=list)

    @property
    def downloads(self) -> list[str]:
        """Return the requests for the bytes of a file."""
        return [request for request in self.requests if request.startswith("GET ") and "/resolve/" in request]


@contextmanager
def hub_server(*models: HostedModel) -> Iterator[HubServer]:
    """A hub with these models; it answers this machine only."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Answer) as listener:
        hub = HubServer(f"http://127.0.0.1:{listener.server_port}", list(models))
        listener.hub = hub  # type: ignore[attr-defined]
        thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield hub
        finally:
            listener.shutdown()
            thread.join()


class _Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        hub: HubServer = self.server.hub  # type: ignore[attr-defined]
        hub.requests.append(f"{self.command} {self.path}")
        for pattern, answer in ((_MODEL_PAGE, self._send_page), (_FILE, self._send_file)):
            asked = pattern.fullmatch(self.path.partition("?")[0])
            if asked:
                commits = [model for model in hub.models if model.repository == asked["repository"]]
                found = [model for model in commits if asked["revision"] in (model.commit, "main", None)]
                if found:
                    answer(found[-1])
                else:
                    self._send(
                        HTTPStatus.NOT_FOUND, {"X-Error-Code": "RevisionNotFound" if commits else "RepoNotFound"}
                    )
                return
        self._send(HTTPStatus.NOT_FOUND, {"X-Error-Code": "EntryNotFound"})

    do_HEAD = do_GET  # noqa: N815

    def _send_page(self, model: HostedModel) -> None:
        size = len(model.content)
        file = {"rfilename": "model.safetensors", "size": size}
        if "blobs=" in self.path:
            file["lfs"] = {"size": size, "sha256": model.sha256, "pointerSize": 134}
        page = {"id": model.repository, "sha": model.commit, "siblings": [file]}
        self._send(HTTPStatus.OK, {"Content-Type": "application/json"}, json.dumps(page).encode())

    def _send_file(self, model: HostedModel) -> None:
        headers = {
            "X-Repo-Commit": model.commit,
            "X-Linked-Size": str(len(model.content)),
            "X-Linked-ETag": f'"{model.sha256}"',
            "ETag": f'"{model.sha256}"',
        }
        start = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if start is None:
            self._send(HTTPStatus.OK, headers, model.sent, model)
        else:
            first, size = int(start[1]), len(model.sent)
            headers["Content-Range"] = f"bytes {first}-{size - 1}/{size}"
            self._send(HTTPStatus.PARTIAL_CONTENT, headers, model.sent[first:], model)

    def _send(
        self, status: HTTPStatus, headers: dict[str, str], content: bytes = b"", model: HostedModel | None = None
    ) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(content))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if model is not None and model.breaks_off_after is not None:
            content, model.breaks_off_after = content[: model.breaks_off_after], None
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """What is asked is in `HubServer.requests`."""
