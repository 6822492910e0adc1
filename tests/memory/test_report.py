from __future__ import annotations

from aerofuse.memory.report import Kind, MemoryReport

REPORT = MemoryReport(
    peak_bytes=1_234_500_000,
    at_peak=dict.fromkeys(Kind, 0) | {Kind.ACTIVATIONS: 1_200_000_000, Kind.OPTIMIZER_STATE: 34_500_000},
    where="backward of stages.2.blocks.1",
    peak_activation_bytes=1_210_000_000,
    source="counted",
)


def test_report_as_text() -> None:
    lines = str(REPORT).splitlines()
    assert lines[0] == "backward of stages.2.blocks.1, counted"
    assert lines[3] == "optimizer state                         34.5 MB"
    assert lines[-2] == "peak                                 1,234.5 MB"
    assert len({len(line) for line in lines[1:]}) == 1


def test_of_two_parts_of_a_step_the_higher_peaks_count() -> None:
    update = MemoryReport(2_000_000_000, dict.fromkeys(Kind, 0), "optimizer step", 5, "counted")
    both = REPORT.larger(update)
    assert (both.where, both.peak_bytes) == ("optimizer step", 2_000_000_000)
    assert both.peak_activation_bytes == REPORT.peak_activation_bytes
    assert update.larger(REPORT) == both
