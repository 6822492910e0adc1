from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from aerofuse.ingest.near_pairs import near_pairs
from tests.imports import ROOT
from tools.benchmarks import copies, side_by_side
from tools.benchmarks.copies import Kind, Rows, make_fingerprints, measure
from tools.benchmarks.results import COPIES


@pytest.mark.parametrize("kind", ["even", "uneven"])
def test_copies_are_planted_up_to_the_radius(kind: Kind) -> None:
    made = make_fingerprints(kind, 1200, 32)
    bits = np.unpackbits(made.packed, axis=2)
    originals, found = bits[made.originals], bits[made.copies]
    plain = (originals[:, 0] != found[:, 0]).sum(1)
    mirrored = (originals[:, 0] != found[:, 1]).sum(1)
    distances, counts = np.unique(np.minimum(plain, mirrored), return_counts=True)
    assert dict(zip(distances.tolist(), counts.tolist(), strict=True)) == {16: 20, 32: 20}
    assert 10 <= np.count_nonzero(mirrored < plain) <= 30
    assert len(np.unique(made.packed[:, 0], axis=0)) == 1200 - 3 * (12 - 1)


def test_uneven_bits_are_more_alike_than_even_ones() -> None:
    """But half of them are ones, as in a perceptual hash."""
    bits = {kind: np.unpackbits(make_fingerprints(kind, 1000, 32).packed[:, 0], axis=1) for kind in ("even", "uneven")}
    spread = {kind: ones.mean(0).std() for kind, ones in bits.items()}
    assert spread["uneven"] > 5 * spread["even"]
    assert bits["uneven"].mean() == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("kind", ["even", "uneven"])
def test_the_index_finds_what_all_pairs_find(kind: Kind) -> None:
    run = measure(kind, 1200, 32, compared=True)
    assert run.same_pairs
    assert run.copies == run.copies_found == 40
    assert run.peak_bytes > 50 * 10**6
    if kind == "even":
        assert run.groups == 1200 - 40 - 3 * (12 - 1)


def test_a_missing_pair_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    found = near_pairs

    def all_but_a_few(*arguments: object) -> Iterator[tuple[Rows, Rows]]:
        for first, second in found(*arguments):  # type: ignore[arg-type]
            kept = (first > 100) & (second > 100)
            yield first[kept], second[kept]

    monkeypatch.setattr(copies, "near_pairs", all_but_a_few)
    assert measure("even", 1200, 32, compared=True).same_pairs is False


@pytest.mark.slow
def test_every_measurement_is_in_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(side_by_side, "FOLDER", tmp_path)
    monkeypatch.chdir(ROOT)
    copies.main(["--fingerprints", "1000", "--many", "2000"])
    (path,) = tmp_path.glob("*.csv")
    table = pd.read_csv(path)
    assert path.name.startswith(f"{COPIES}-")
    assert table["fingerprints"].tolist() == 6 * [1000] + 2 * [2000]
    assert table["most_bits"].tolist() == [32, 32, *copies.OTHER_RADII, 32, 32]
    assert table["same_pairs"].tolist()[:6] == 6 * [True]
    assert table["same_pairs"][6:].isna().all()
    assert (table["copies_found"] == table["copies"]).all()


def test_one_measurement_is_printed_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    copies.main(["--here", "even", "400", "8"])
    run = copies.CopiesRun(**json.loads(capsys.readouterr().out))
    assert (run.kind, run.fingerprints, run.most_bits, run.same_pairs) == ("even", 400, 8, None)
