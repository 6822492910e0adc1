"""Samples of the machine's CPU, memory, disk, network and GPU while a stage trains."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping
from itertools import count
from typing import Any

logger = logging.getLogger(__name__)

_INTERVAL_S = 5  # MLflow's own 10 s leaves a short run with a point or two
_STOP_S = 1  # a meter that hangs is not waited for any longer


class MachineMonitor:
    """MLflow's meters, read in a thread of its own. MLflow's own monitor ends for good when its server fails once."""

    def __init__(self, publish: Callable[[Mapping[str, float], int], None]) -> None:
        """`publish` is given the metrics and the number of the sample."""
        self._publish = publish
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="MachineMonitor", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Take no more samples."""
        self._stop.set()
        self._thread.join(_STOP_S)

    def _run(self) -> None:
        try:
            interval_s = float(os.environ.get("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", _INTERVAL_S))
            meters = _meters()
            for sample in count():
                for meter in meters:
                    meter.collect_metrics()
                if self._stop.wait(interval_s):
                    return
                metrics: dict[str, float] = {}
                for meter in meters:
                    metrics |= meter.aggregate_metrics()
                    meter.clear_metrics()
                self._publish({f"system/{name}": value for name, value in metrics.items()}, sample)
        except Exception as error:  # a meter's, and MLflow's meters raise what their libraries raise
            logger.warning("the machine is not watched any more: %s: %s", type(error).__name__, error)


def _meters() -> list[Any]:
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
    from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor
    from mlflow.system_metrics.metrics.rocm_monitor import ROCMMonitor

    everywhere: list[Any] = [CPUMonitor, DiskMonitor, NetworkMonitor]
    meters = [kind() for kind in everywhere]
    for kind in (GPUMonitor, ROCMMonitor):
        try:
            return [*meters, kind()]
        except Exception as error:  # no such GPU, no driver or no library
            logger.debug("%s: %s", kind.__name__, error)
    return meters
