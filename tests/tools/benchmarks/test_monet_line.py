from __future__ import annotations

from pathlib import Path

import pytest

from tests.tools.benchmarks.samples import ESTIMATED
from tools.benchmarks import monet_line
from tools.benchmarks.results import FOLDER, MONET, newest_results
from tools.benchmarks.tables import monet_table


@pytest.mark.slow
def test_the_line_is_measured_at_monets_shares(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(monet_line, "Measured", lambda batch: ESTIMATED)
    monet_line.main(["--time-batch", "1", "--rounds", "1", "--image-size", "128"])
    (path,) = newest_results(FOLDER, MONET)
    table = monet_table(path)
    assert [line.split("|")[1].strip() for line in table.splitlines()[2:]] == ["0.665", "0.398", "0.331"]
    assert [line.split("|")[2].strip() for line in table.splitlines()[2:]] == ["1.032", "1.093", "1.120"]


def test_numbers_that_measure_nothing_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        monet_line.main(["--batch", "0"])
    assert "--batch, --time-batch and --rounds must be at least 1" in capsys.readouterr().err
