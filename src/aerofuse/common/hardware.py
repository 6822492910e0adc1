"""The hardware that results are made on: names of devices, and their memory."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

# Where Linux says how much memory a container may take.
_OWN_GROUPS = Path("/proc/self/cgroup")
_GROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class DeviceMemory:
    """The memory of a device, and what of it this process can still take."""

    total_bytes: int
    free_bytes: int


def memory_of(device: torch.device) -> DeviceMemory:
    """Return the memory of a GPU, or of the machine, which every other device shares.

    On CUDA, memory that torch has taken from the device and not given to tensors counts as free. Inside a container
    its limit holds, and the page cache counts as free.
    """
    if device.type == "cuda":
        free_bytes, total_bytes = torch.cuda.mem_get_info(device)
        unused_bytes = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return DeviceMemory(total_bytes, free_bytes + unused_bytes)
    machine = psutil.virtual_memory()
    limits = [DeviceMemory(machine.total, machine.available), *_group_limits(_OWN_GROUPS, _GROUPS)]
    return DeviceMemory(min(limit.total_bytes for limit in limits), min(limit.free_bytes for limit in limits))


def _group_limits(own_groups: Path, mount: Path) -> Iterator[DeviceMemory]:
    """The limits of the control groups that this process is in, both of version 2 and of version 1."""
    if not own_groups.is_file():
        return
    for line in own_groups.read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, names = mount, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            root, names = mount / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        group = root / path.lstrip("/")
        # A group's limit holds for those inside of it. In a container its own group may be mounted as the root.
        for folder in (group, *group.parents):
            if folder.is_relative_to(root):
                yield from _limit_of(folder, *names)


def _limit_of(group: Path, limit_name: str, used_name: str, files_name: str) -> Iterator[DeviceMemory]:
    try:
        limit = (group / limit_name).read_text().strip()
        used_bytes = int((group / used_name).read_text())
        counters = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except OSError:  # no such group here, or one without a limit, as the root
        return
    if limit.isdecimal():  # else `max`
        free_bytes = int(limit) - used_bytes + int(counters.get(files_name, 0))
        yield DeviceMemory(int(limit), max(free_bytes, 0))


class OtherWork:
    """How busy other programs keep the processors, from the creation of this meter on."""

    def __init__(self) -> None:
        self._start = _cpu_seconds()

    def share(self) -> float:
        """Return the share in 0..1 of all processors' time that was not spent by this process and those it started."""
        total, busy, own = (end - start for end, start in zip(_cpu_seconds(), self._start, strict=True))
        return round(min(max(0.0, (busy - own) / total), 1.0), 3) if total else 0.0


def _cpu_seconds() -> tuple[float, float, float]:
    """Seconds of all processors so far, those of them that were busy, and those that this process was."""
    machine = psutil.cpu_times()._asdict()
    total = sum(machine.values()) - machine.get("guest", 0.0) - machine.get("guest_nice", 0.0)  # in user, too
    own = 0.0
    this = psutil.Process()
    for process in (this, *this.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            own += sum(process.cpu_times()[:4])
    return total, total - machine["idle"] - machine.get("iowait", 0.0), own


def synchronise(device: torch.device) -> None:
    """Wait until `device` has done all that it was given; a CPU always has."""
    if device.type not in ("cpu", "meta"):
        torch.accelerator.synchronize(device)


def seconds_of(call: Callable[[], object], device: torch.device) -> float:
    """Return the seconds that a call takes, with all that it starts on `device`."""
    synchronise(device)
    started = time.perf_counter()
    call()
    synchronise(device)
    return time.perf_counter() - started


def device_name(device: torch.device) -> str:
    """Return the device's name as people know it, such as `NVIDIA H200` or `AMD EPYC, 2 threads`."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type != "cpu":
        return device.type
    return f"{_cpu_model()}, {torch.get_num_threads()} threads"


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
