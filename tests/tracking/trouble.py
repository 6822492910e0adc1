"""MLflow's own client, in any kind of trouble."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

# Called with the name of a method and its arguments, written out.
Trouble = Callable[[str, str], None]


class TroubledMlflow:
    """Calls the store at `uri`; `before` and `after` each call they may raise, for what gets lost on the way."""

    def __init__(self, uri: str) -> None:
        self._client = MlflowClient(tracking_uri=uri)
        self.calls: list[str] = []
        self.before: Trouble | None = None
        self.after: Trouble | None = None

    def __getattr__(self, method: str) -> Callable[..., Any]:
        action = getattr(self._client, method)

        def call(*arguments: Any, **named: Any) -> Any:
            self.calls.append(method)
            text = f"{arguments} {named} {[vars(each) for key in ('params', 'metrics') for each in named.get(key, ())]}"
            if before := self.before:  # which the test may change meanwhile
                before(method, text)
            answer = action(*arguments, **named)
            if after := self.after:
                after(method, text)
            return answer

        return call


def gone(method: str, arguments: str) -> None:
    """Nobody listens at the address."""
    raise MlflowException("API request failed with exception: connection refused")


def refusing(wanted: str, part: str = "") -> Trouble:
    """The method `wanted` is refused where `part` is in its arguments."""

    def refuse(method: str, arguments: str) -> None:
        if method == wanted and part in arguments:
            raise MlflowException(f"{part or method} is not valid", INVALID_PARAMETER_VALUE)

    return refuse


def broken(wanted: str, part: str = "") -> Trouble:
    """The method `wanted` makes the server fail where `part` is in its arguments; all else works."""

    def fail(method: str, arguments: str) -> None:
        if method == wanted and part in arguments:
            raise MlflowException("internal error")

    return fail


class Hanging:
    """No answer until `release`, then a failed connection."""

    def __init__(self) -> None:
        self.release = threading.Event()

    def __call__(self, method: str, arguments: str) -> None:
        self.release.wait(120)
        raise MlflowException("API request failed with timeout exception")
