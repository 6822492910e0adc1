from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from aerofuse.backbones.families import FAMILIES
from tests.tools.benchmarks.samples import ESTIMATED, WAYS, results, row, tiny_subject
from tools.benchmarks import memory, side_by_side
from tools.benchmarks.results import FOLDER, BenchmarkSettings, Results, newest_results
from tools.benchmarks.rows import AT_HALF, BASELINE, LEAST, PLANNED, RECOMPUTE_ALL, by_variant, is_known
from tools.benchmarks.side_by_side import frontier, machine, measure
from tools.benchmarks.subjects import Subject, middle_variant

SETTINGS = BenchmarkSettings(image_size_px=64, count_batch=4, time_batch=2, rounds=1)


@pytest.fixture(scope="module")
def measured() -> Results:
    """Every way to train a tiny network, in both precisions."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(side_by_side, "Measured", lambda batch: ESTIMATED)
        return measure(tiny_subject(), SETTINGS)


@pytest.mark.slow
def test_every_way_is_measured(measured: Results) -> None:
    ways = by_variant(measured.table)["tiny"]
    assert list(ways) == list(WAYS)
    assert ways[BASELINE]["peak_ratio"] == 1
    assert ways[RECOMPUTE_ALL]["peak_ratio"] < 1
    assert ways[AT_HALF]["peak_ratio"] <= 0.5
    assert ways[LEAST]["peak_bytes"] == min(way["peak_bytes"] for way in ways.values())
    for name in PLANNED:
        assert ways[name]["predicted_peak_bytes"] == ways[name]["peak_bytes"]
        assert ways[name]["predicted_time_ratio"] >= 1
        differ = [column for column in ways[name].index if column.endswith("_that_differ")]
        assert len(differ) == 4
        assert all(ways[name][column] == 0 for column in differ)
    assert all(abs(way["peak_error"]) < 0.02 for way in ways.values())


@pytest.mark.slow
def test_in_bf16_a_cpu_counts_and_takes_no_times(measured: Results) -> None:
    table = measured.table
    rows = table[table["precision"] == "bf16"]
    assert set(rows["way"]) <= set(WAYS)
    assert not rows["time_ratio"].map(is_known).any()
    assert not rows["predicted_time_ratio"].map(is_known).any()
    checked = rows[rows["peak_error"].map(is_known)]
    assert list(checked["way"]) == [LEAST]
    assert list(checked["real_input_shape"]) == ["2x3x64x64"]
    assert abs(checked["peak_error"].iloc[0]) < 0.05


@pytest.mark.slow
def test_the_curve_falls_from_the_least_memory_to_all_of_it(measured: Results) -> None:
    curve = measured.curves["tiny"]
    assert curve == sorted(curve)
    assert curve[-1] == (1.0, 1.0)
    times = [time for _, time in curve]
    assert times == sorted(times, reverse=True)
    # It is of the batch that is timed, as what is promised for each plan.
    ways = by_variant(measured.table)["tiny"]
    assert (ways[LEAST]["peak_ratio"], ways[LEAST]["predicted_time_ratio"]) == curve[0]


def test_points_that_another_beats_are_no_frontier() -> None:
    points = [(0.5, 1.1), (0.4, 1.05), (0.3, 1.2), (1.0, 1.02)]
    assert frontier(points) == [(0.3, 1.2), (0.4, 1.05), (1.0, 1.0)]


def fake_measure(subject: Subject, settings: BenchmarkSettings) -> Results:
    found = results(*(row(subject.family, way) for way in WAYS))
    return dataclasses.replace(found, machine=machine(subject.device), settings=settings, planning=None)


def test_the_table_grows_with_each_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    measured: list[str] = []

    def measure_but_the_last(subject: Subject, settings: BenchmarkSettings) -> Results:
        if subject.variant == "mobilenetv3_small_100":
            raise KeyboardInterrupt
        measured.append(subject.variant)
        return fake_measure(subject, settings)

    monkeypatch.setattr(memory, "measure", measure_but_the_last)
    with pytest.raises(KeyboardInterrupt):
        memory.main(["resnet", "mobilenet", "--rounds", "1"])
    (path,) = newest_results(FOLDER, "resnet-mobilenet")
    assert Results.load(path).variants == ["resnet50"]
    monkeypatch.setattr(memory, "measure", fake_measure)
    memory.main(["resnet", "mobilenet", "--rounds", "1", "--resume"])
    assert measured == ["resnet50"]
    assert Results.load(path).variants == ["resnet50", "mobilenetv3_small_100"]
    assert Results.load(path).planning is None
    with pytest.raises(ValueError, match="rounds: 2 and 1"):
        memory.main(["resnet", "mobilenet", "--rounds", "2", "--resume"])
    assert newest_results(FOLDER) == []  # that of all families


def test_all_families_are_measured_unless_some_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    planning = results().planning
    monkeypatch.setattr(memory, "_subject", lambda name, *_: backbone_like(name))
    monkeypatch.setattr(memory, "measure", fake_measure)
    monkeypatch.setattr(memory, "time_planning", lambda: planning)
    memory.main([])
    found = Results.load(newest_results(FOLDER)[0])
    assert found.variants == [middle_variant(family) for family in FAMILIES]
    assert found.planning == planning


def backbone_like(family: str) -> Subject:
    """A small network that says it is of `family`."""
    return dataclasses.replace(tiny_subject(), family=family)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resnet55"], "near names: resnet50"),
        (["resnet", "--rounds", "0"], "rounds is 0; it must be at least 1"),
        (["resnet", "--count-batch", "1"], "count_batch is 1; it must be at least 2"),
        (["--precision", "fp16"], "invalid choice: 'fp16'"),
        (["--device", "cude"], "'cude' is no device; there are cpu and cuda"),
        (["--device", "meta"], "no 'meta' here"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        memory.main(arguments)
    assert message in capsys.readouterr().err
