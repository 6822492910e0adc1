from __future__ import annotations

import gc

import pytest

from aerofuse.paused_collection import paused_collection


@pytest.mark.parametrize("enabled", [True, False])
def test_it_is_afterwards_as_it_was(enabled: bool) -> None:
    if not enabled:
        gc.disable()
    try:
        with paused_collection():
            assert not gc.isenabled()
        assert gc.isenabled() == enabled
        with pytest.raises(KeyError):
            _fail_inside()
        assert gc.isenabled() == enabled
    finally:
        gc.enable()


def _fail_inside() -> None:
    with paused_collection():
        raise KeyError
