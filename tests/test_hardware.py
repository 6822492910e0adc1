from __future__ import annotations

import torch

from aerofuse.hardware import device_name


def test_a_cpu_is_named_with_its_threads() -> None:
    name = device_name(torch.device("cpu"))
    assert name.endswith(f", {torch.get_num_threads()} threads")
    assert len(name) > len(", 1 threads")


def test_another_device_is_named_by_its_kind() -> None:
    assert device_name(torch.device("meta")) == "meta"
