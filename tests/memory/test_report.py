from __future__ import annotations

from aerofuse.memory.report import Kind, MemoryReport


def test_of_two_parts_of_a_step_the_higher_peaks_count() -> None:
    passes = MemoryReport(1_234_500_000, dict.fromkeys(Kind, 0), peak_activation_bytes=1_210_000_000)
    update = MemoryReport(2_000_000_000, dict.fromkeys(Kind, 1), peak_activation_bytes=5)
    both = passes.larger(update)
    assert (both.peak_bytes, both.at_peak) == (2_000_000_000, update.at_peak)
    assert both.peak_activation_bytes == passes.peak_activation_bytes
    assert update.larger(passes) == both
