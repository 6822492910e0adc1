"""The benchmark of waiting threads."""

from __future__ import annotations

import pytest

from tools.benchmarks import waiting


@pytest.mark.slow
def test_a_process_of_its_own_measures_every_backbone() -> None:
    speeds = waiting.measure(spins=0, steps=2)
    assert len(speeds) == len(waiting.BACKBONES)
    assert all(speed > 0 for speed in speeds)


def test_every_number_of_spins_is_measured_alone_and_beside_a_busy_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(waiting, "measure", lambda spins, steps: [spins + 1.0, spins + 2.0])
    waiting.main([])
    rows = capsys.readouterr().out.splitlines()[2:]
    assert [[cell.strip() for cell in row.strip("|").split("|")] for row in rows] == [
        [f"{spins:,}", *2 * (str(spins + 1), str(spins + 2))] for spins in waiting.SPINS
    ]
