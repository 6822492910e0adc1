"""The words in the files, for those that write and those that read them."""

from __future__ import annotations

from typing import Any

from tools.benchmarks.rows import MONET_PUBLISHED

Row = dict[str, Any]
OK, OUT_OF_MEMORY = "ok", "out of memory"
GATE, NETWORKS, MONET, THROUGHPUT, LATENCY = "gate", "networks", "monet", "throughput", "latency"
OFFLOAD = "offload"
HYBRID, IN_SERIES = "hybrid", "timm's two in series"
# By the way to train: the budget of MONeT that the plan keeps to, in GB, and MONeT's time.
MONET_WAYS = {f"planned within MONeT's {memory_gb:.2f} GB": (memory_gb, time) for memory_gb, time in MONET_PUBLISHED}
