from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

from aerofuse.common import hardware
from aerofuse.common.hardware import DeviceMemory, OtherWork, device_name, memory_of

CPU = torch.device("cpu")


def test_a_cpu_is_named_with_its_threads() -> None:
    name = device_name(torch.device("cpu"))
    assert name.endswith(f", {torch.get_num_threads()} threads")
    assert len(name) > len(", 1 threads")


def test_another_device_is_named_by_its_kind() -> None:
    assert device_name(torch.device("meta")) == "meta"


def test_the_memory_of_the_machine() -> None:
    memory = memory_of(CPU)
    assert 0 <= memory.free_bytes <= memory.total_bytes <= psutil.virtual_memory().total
    assert memory.total_bytes > 100_000_000


def _groups(folder: Path, own_groups: str, files: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> DeviceMemory:
    """The memory as it is found under made-up control groups."""
    (folder / "cgroup").write_text(own_groups)
    for name, text in files.items():
        path = folder / "sys" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(hardware, "_OWN_GROUPS", folder / "cgroup")
    monkeypatch.setattr(hardware, "_GROUPS", folder / "sys")
    return memory_of(CPU)


def test_a_container_s_limit_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "memory.max": "50000000\n",
        "memory.current": "40000000\n",
        "memory.stat": "anon 1\ninactive_file 3000000\n",
    }
    assert _groups(tmp_path, "0::/\n", files, monkeypatch) == DeviceMemory(50_000_000, 13_000_000)


def test_the_limit_of_a_group_around_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = {"user/app/memory.max": "max\n", "user/app/memory.current": "5\n", "user/app/memory.stat": "anon 5\n"}
    outer = {"user/memory.max": "900\n", "user/memory.current": "1000\n", "user/memory.stat": "anon 1000\n"}
    assert _groups(tmp_path, "0::/user/app\n", inner | outer, monkeypatch) == DeviceMemory(900, 0)


def test_groups_of_the_first_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "memory/memory.limit_in_bytes": "70000\n",
        "memory/memory.usage_in_bytes": "60000\n",
        "memory/memory.stat": "inactive_file 1\ntotal_inactive_file 2000\n",
    }
    # The host's name of the group, which the container does not see.
    own = "5:cpu,cpuacct:/docker/7\n4:memory:/docker/7\n"
    assert _groups(tmp_path, own, files, monkeypatch) == DeviceMemory(70_000, 12_000)


def test_no_groups_no_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _groups(tmp_path, "0::/nowhere\n", {}, monkeypatch).total_bytes == psutil.virtual_memory().total


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_what_the_allocator_keeps_for_later_is_free() -> None:
    device = torch.device("cuda", torch.cuda.current_device())
    before = memory_of(device)
    tensor = torch.zeros(100_000_000, dtype=torch.uint8, device=device)
    assert before.free_bytes - memory_of(device).free_bytes >= tensor.nbytes
    del tensor
    assert memory_of(device).free_bytes >= before.free_bytes - 10_000_000


_BUSY = "while True: pass"


def test_the_work_of_others_is_told_from_ones_own() -> None:
    command = [sys.executable, "-c", _BUSY]
    *_, before = hardware._cpu_seconds()
    with subprocess.Popen(command) as started:
        time.sleep(1.5)
        *_, after = hardware._cpu_seconds()
        started.kill()
    assert after - before > 0.2  # what a process starts is its own work
    # Its parent ends at once, so that it is no child of this process.
    quiet = "stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL"
    orphan = f"import subprocess; print(subprocess.Popen({command!r}, {quiet}).pid)"
    done = subprocess.run([sys.executable, "-c", orphan], capture_output=True, text=True, check=True)
    try:
        meter = OtherWork()
        time.sleep(1.5)
        assert 0.3 / (psutil.cpu_count() or 1) < meter.share() <= 1
    finally:
        os.kill(int(done.stdout), signal.SIGKILL)
