"""Object stores such as S3, by the addresses that fsspec knows.

Where a store is and who may use it is said as its own tools are told: for S3 by the variables `AWS_*`, or a profile.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import fsspec

# A forked process must never free what its parent has open. It would close connections in an event loop of another one.
_opened: dict[int, Any] = {}


def is_remote(text: str) -> bool:
    """Return whether a text is the address of a folder in an object store, such as `s3://bucket/photos`."""
    return "://" in text


def open_store(url: str) -> tuple[Any, str]:
    """Return a file system of fsspec, and the path there of what an address names. Each process opens its own."""
    store, path = fsspec.url_to_fs(url)
    _opened[id(store)] = store
    return store, path


@contextmanager
def refusals(url: str) -> Iterator[None]:
    """Turn what a store's library raises into one line of a `ConnectionError`, except where a file is missing."""
    try:
        yield
    except FileNotFoundError:
        raise
    except ImportError as error:
        raise ConnectionError(f"{url} needs a package: {error}; for S3, pip install 'aerofuse[s3]'") from None
    except Exception as error:  # each library has classes of its own
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ConnectionError(
            f"{url}: the object store does not answer or refuses ({reason}); for S3, check AWS_ENDPOINT_URL, "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, on every machine that reads photos"
        ) from None
