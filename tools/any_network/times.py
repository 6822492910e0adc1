"""Real steps of one network under its library's own switch, and under the plan at the switch's peak."""

from __future__ import annotations

import copy
import math
import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from aerofuse.checkpointing.budget import Budget
from aerofuse.common.hardware import seconds_of
from aerofuse.memory.step import count_training_step
from aerofuse.planning.planner import Planner
from tools.any_network.findings import Finding
from tools.any_network.networks import NetworkName, build
from tools.any_network.trial import loss_of, switched, words

# So large that a step is arithmetic, and not Python's calls.
_LEAST_PX = 160
_BATCH = 4
_LEAST_ROUNDS, _TIMING_S = 5, 15.0
_ERROR_OF_MEDIAN = 0.93  # that of a normal distribution, over the distance of its quarters


def time_network(finding: Finding) -> Finding:
    """Return a finding with the times of steps over those without checkpointing, or with why there is no plan.

    Raises what the network raises under the switch, and where nothing is planned.
    """
    built = build(NetworkName(finding.library, finding.name, finding.file), _LEAST_PX)
    under_switch = switched(built.network)
    assert under_switch is not None
    shape = (_BATCH, *built.input_shape[1:])
    report = count_training_step(under_switch, shape, loss=loss_of, optimizer=None, fake=True)
    try:
        planner = Planner(built.network, shape, loss=loss_of)
        share = report.peak_activation_bytes / planner.baseline.activation_bytes
        plan = planner.plan(Budget(share=share))
    except Exception as error:  # the network has no plan then, and must not pass for one that was not timed
        reason = f"with measured times, at the switch's peak: {words(error)}"
        return replace(finding, plan_bytes="", plan_time_predicted="", reason=reason)
    planned = copy.deepcopy(built.network)
    plan.apply(planned)
    rounds = _rounds([built.network, under_switch, planned], torch.rand(shape))
    return replace(
        finding,
        timed_px=shape[-1],
        plan_time_predicted=round(plan.predicted.time_ratio, 4),
        plan_time=_median(plan_s / baseline for baseline, _, plan_s in rounds),
        switch_time=_median(switch_s / baseline for baseline, switch_s, _ in rounds),
        time_error=_error([(plan_s - switch_s) / baseline for baseline, switch_s, plan_s in rounds]),
    )


def _rounds(networks: list[nn.Module], images: Tensor) -> list[list[float]]:
    """Return the seconds of a step of each, in turns; a first round is not counted."""
    rounds: list[list[float]] = []
    end = 0.0
    while len(rounds) < _LEAST_ROUNDS or time.perf_counter() < end:
        seconds = [_seconds_of_step(network, images) for network in networks]
        if end:
            rounds.append(seconds)
        else:
            end = time.perf_counter() + _TIMING_S
    return rounds


def _median(ratios: Iterable[float]) -> float:
    return round(statistics.median(ratios), 4)


def _error(differences: Sequence[float]) -> float:
    """Return the standard error of the median of the rounds, from the quarters, which no disturbed round moves."""
    lower, _, upper = statistics.quantiles(differences, n=4)
    return round(_ERROR_OF_MEDIAN * (upper - lower) / math.sqrt(len(differences)), 4)


def _seconds_of_step(network: nn.Module, images: Tensor) -> float:
    torch.manual_seed(0)
    network.zero_grad()
    return seconds_of(lambda: loss_of(network(images)).backward(), images.device)
