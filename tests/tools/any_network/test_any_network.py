"""The sweep over all libraries: one network of each kind, going on where it has ended, and the page."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest

import tools.any_network.__main__ as command
from tools.any_network import times
from tools.any_network.findings import Finding, Served, append_finding, read_findings
from tools.any_network.networks import NetworkName, all_networks
from tools.any_network.page import any_network_page, draw_any_network, summary
from tools.any_network.trial import try_network

KINDS = [
    ("timm", "resnet10t", "a row of blocks"),
    ("torchvision", "squeezenet1_1", "a row of blocks without residual connections"),
    ("timm", "vit_tiny_patch16_224", "a transformer"),
    pytest.param("timm", "swin_tiny_patch4_window7_224", "windows", marks=pytest.mark.slow),
    pytest.param("timm", "hrnet_w18_small", "branches", marks=pytest.mark.slow),
    pytest.param("timm", "densenet121", "dense connections", marks=pytest.mark.slow),
    pytest.param("torchvision", "vgg11", "a row of layers", marks=pytest.mark.slow),
    pytest.param("torchvision", "googlenet", "several results", marks=pytest.mark.slow),
    *(
        pytest.param(
            "Hugging Face",
            name,
            "side inputs and results of its own",
            marks=[
                pytest.mark.slow,
                pytest.mark.skipif(find_spec("transformers") is None, reason="transformers is not installed"),
            ],
        )
        for name in ("vit", "swin", "segformer")
    ),
]
NAME = NetworkName("timm", "resnet10t", "resnet")
FOUND = Finding("timm", "resnet10t", "resnet", Served.EXACT)
TIMED = replace(FOUND, switch_bytes=2, plan_bytes=1, plan_time=1.2, switch_time=1.3)


@pytest.mark.parametrize(("library", "name", "kind"), KINDS)
def test_one_network_of_each_kind(library: str, name: str, kind: str) -> None:
    row = try_network(NetworkName(library, name, ""))
    assert (row.served, row.reason, row.differs) == (Served.EXACT, "", ""), kind
    assert int(row.least_bytes) < int(row.baseline_bytes)
    assert int(row.longest) > 1


def test_steps_are_timed_beside_the_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(times, "_LEAST_PX", 64)
    monkeypatch.setattr(times, "_TIMING_S", 0.0)
    row = times.time_network(FOUND)
    assert row.timed_px == 64
    assert min(float(row.plan_time), float(row.switch_time), float(row.plan_time_predicted) - 0.5) > 0.5
    assert float(row.time_error) > 0


def test_what_cannot_be_built_is_said() -> None:
    row = try_network(NetworkName("timm", "resnet0", ""))
    assert row.served == Served.NOT_BUILT
    assert "Unknown model (resnet0)" in row.reason


def test_the_networks_are_those_of_the_libraries() -> None:
    networks = all_networks()
    assert len({(one.library, one.name) for one in networks}) == len(networks)
    assert {one.library for one in networks} >= {"timm", "torchvision"}


def test_what_is_in_the_table_is_not_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table, tried = tmp_path / "any_network.csv", []

    def note(find: partial[Finding], _limit_s: float) -> Finding:
        (name,) = find.args
        tried.append(name.name)
        return replace(FOUND, name=name.name, plan_time="")

    monkeypatch.setattr(command, "in_process", note)
    names = [replace(NAME, name=name) for name in ("one", "two", "three")]
    command.sweep(names[:1], table, minutes=1, limit_s=1)
    command.sweep(names, table, minutes=-1, limit_s=1)
    assert tried == ["one"]
    command.sweep(names, table, minutes=1, limit_s=1)
    assert tried == ["one", "two", "three"] == [row.name for row in read_findings(table)]


def _fall() -> Finding:
    os.kill(os.getpid(), signal.SIGKILL)
    return FOUND


def _sleep() -> Finding:
    time.sleep(60)
    return FOUND


def _raise() -> Finding:
    raise ValueError("it has\nno units")


def test_a_network_that_takes_too_long_or_too_much_or_raises() -> None:
    assert command.in_process(lambda: FOUND, 60) == FOUND
    assert command.in_process(_fall, 60) == "its process has ended, for want of memory perhaps"
    assert command.in_process(_raise, 60) == "ValueError: it has no units"
    assert command.in_process(_sleep, 0.1) == "it takes more than 0.1 s"


def test_the_page_counts_and_names(tmp_path: Path) -> None:
    wrong = replace(TIMED, name="odd", served=Served.NOT_EXACT, differs="selective: 1 loss", plan_time="")
    slower = replace(TIMED, name="slower", plan_time=1.4, time_error=0.05)
    alike = replace(slower, name="alike", time_error=0.2)
    later = replace(TIMED, name="later", plan_time="", switch_time="")
    for row in (TIMED, wrong, slower, alike, later):
        append_finding(tmp_path / "table.csv", row)
    rows = read_findings(tmp_path / "table.csv")
    assert "5 networks of timm that were tried, 4 are planned and exact: 80.0%" in summary(rows)
    assert "1 of 3 take no more time under a plan" in summary(rows)
    assert "Of 1 more, the difference is within its standard error. Not timed" in summary(rows)
    assert "standard error. Not timed, or too slow for it: 1 more with a switch." in summary(rows)
    assert any_network_page(rows).count("selective: 1 loss") == 1
    draw_any_network(rows, tmp_path / "chart.png")
    assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")
