from __future__ import annotations

import numpy as np
import pytest

from aerofuse.checkpointing.budget import Budget, format_bytes, parse_budget


@pytest.mark.parametrize(
    ("value", "budget"),
    [
        ("6 GiB", Budget(num_bytes=6 * 2**30)),
        ("1.5GB", Budget(num_bytes=1_500_000_000)),
        (" 500 MiB ", Budget(num_bytes=500 * 2**20)),
        (1_000_000, Budget(num_bytes=1_000_000)),
        (0.5, Budget(share=0.5)),
        (1.0, Budget(share=1.0)),
    ],
)
def test_budgets_as_people_write_them(value: object, budget: Budget) -> None:
    assert parse_budget(value) == budget
    assert parse_budget(budget) == budget


@pytest.mark.parametrize(
    "value", ["6 gigs", "GiB", "-3 GiB", "1e9 B", "0 MB", "0.5", 0, 1.5, -0.1, -5, True, None, [1]]
)
def test_what_is_no_budget(value: object) -> None:
    with pytest.raises(ValueError, match=r"6 GiB|less than one byte"):
        parse_budget(value)


def test_bytes_as_people_read_them() -> None:
    assert [format_bytes(size) for size in (12, 1536, 5 * 2**20, 6 * 2**30)] == ["12 B", "1.5 KiB", "5 MiB", "6.00 GiB"]
    assert str(Budget(share=0.5)) == "50%"
    assert str(Budget(num_bytes=2**31)) == "2.00 GiB"


def test_numbers_of_numpy() -> None:
    assert parse_budget(np.int64(6 * 2**30)) == Budget(num_bytes=6 * 2**30)
    assert parse_budget(np.float32(0.5)) == Budget(share=0.5)
    assert type(parse_budget(np.int64(2**30)).num_bytes) is int  # which a plan is saved with
    with pytest.raises(ValueError, match="a memory budget is a number of bytes"):
        parse_budget(np.True_)
