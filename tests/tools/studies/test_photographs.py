from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from aerofuse.common.params import read_params_file, validate
from aerofuse.pipeline_params import Params
from tests.imports import ROOT
from tests.ingest.photo_folder import PhotoFolder, draw_folder
from tests.pipeline import clone_on_a_shrunken_recipe
from tests.test_docs_commands import PREAMBLES, blocks
from tools.chinese import chinese_tables
from tools.studies import photographs
from tools.studies.photographs import PhotographCandidate, find_labels, load_candidates, main, read_known
from tools.studies.photographs_page import (
    AIM_COMPARED,
    COMPARED,
    PhotographResult,
    PhotographStudy,
    draw_photographs,
    photographs_page,
)

CANDIDATES = load_candidates()
PHOTOS = {"train": 60, "validation": 20, "test": 40, "types": 2}


def result_of(candidate: str, model: str, right: int, test_photos: int = 40) -> PhotographResult:
    """A result with the first photos right, and all of them in the first five."""
    made = CANDIDATES[candidate]
    return PhotographResult(
        candidate=candidate,
        model=model,
        backbones=made.shown(made.backbones, model),
        weights=made.shown(made.weights, model),
        image_size=96,
        views=4,
        seconds=12.4,
        device="a processor",
        busy_elsewhere=0.25,
        top1_right="1" * right + "0" * (test_photos - right),
        top5_right="1" * test_photos,
    )


def every_result(bundled: int = 30) -> tuple[PhotographResult, ...]:
    return tuple(
        result_of(name, model, 10 if "random" in name else bundled)
        for name, candidate in CANDIDATES.items()
        for model in candidate.models
    )


@pytest.fixture
def folder(tmp_path: Path) -> PhotoFolder:
    """Photos with types alone, a third of them for the test, as FGVC-Aircraft words it."""
    drawn = draw_folder(tmp_path / "photos (mine)", photos=60, side_px=96, types=2)
    drawn.table = drawn.table[["filename", "typename"]].assign(official_split=["trainval", "trainval", "test"] * 20)
    drawn.write()
    return drawn


@pytest.mark.parametrize("candidate", CANDIDATES.values(), ids=CANDIDATES)
def test_the_settings_of_a_candidate_are_what_its_words_say(
    candidate: PhotographCandidate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    content = read_params_file()
    content["data"]["source"] = "table"  # as the study sets it
    for name, value in candidate.settings.items():
        *parents, last = name.removeprefix("+").split(".")
        section = content
        for parent in parents:
            section = section[parent]
        assert (last in section) != name.startswith("+"), name
        section[last] = value
    recipe = validate(Params, content, "params.yaml").active
    sources = (
        recipe.weights.cnn_source or recipe.weights.source,
        recipe.weights.transformer_source or recipe.weights.source,
    )
    assert candidate.backbones == (recipe.backbones.cnn, recipe.backbones.transformer)
    assert tuple("random" if source == "none" else source for source in sources) == candidate.weights


def test_what_is_compared_is_measured() -> None:
    measured = {(name, model) for name, candidate in CANDIDATES.items() for model in candidate.models}
    assert measured >= {key for pair in COMPARED.values() for key in pair}


def test_an_official_split_becomes_a_column_split(folder: PhotoFolder, tmp_path: Path) -> None:
    labels, sha256 = find_labels(folder.root, tmp_path / "own/labels.csv")
    assert labels == tmp_path / "own/labels.csv"
    written = pd.read_csv(labels)
    assert list(written["split"]) == ["train", "train", "test"] * 20
    assert list(written["filename"]) == list(folder.table["filename"])
    folder.table["typename"] = list(reversed(folder.table["typename"]))
    folder.write()
    assert find_labels(folder.root, labels)[1] != sha256


def test_a_table_with_a_split_is_used_as_it_is(folder: PhotoFolder, tmp_path: Path) -> None:
    folder.table = folder.table.rename(columns={"official_split": "split"}).replace({"split": {"trainval": "train"}})
    folder.write()
    assert find_labels(folder.root, tmp_path / "own.csv")[0] == folder.labels
    assert not (tmp_path / "own.csv").exists()


def test_the_page_says_how_to_make_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The piece of Python, on an archive of two photos; its folder is one that the study takes."""
    monkeypatch.chdir(tmp_path)
    code = next(content for language, content in blocks(ROOT / "docs/photographs.md") if language == "python")
    exec(PREAMBLES["photographs.md"] + code, {})
    labels, _ = find_labels(Path("fgvc20"), tmp_path / "own.csv")
    assert pd.read_csv(labels)["split"].tolist() == ["train", "test"]
    assert [Image.open(path).size for path in sorted(Path("fgvc20").glob("*.jpg"))] == [(384, 288), (384, 288)]


FAULTS = {
    "no test": ("trainval", "has no photo of test in its column of splits; write test in some"),
    "no train": ("test", "has no photo of train in its column of splits"),
    "a word": ("holdout", "row 2, official_split 'holdout': write trainval, train, val or test"),
    "no column": (None, "has no column split; add one that says train or test"),
}


@pytest.mark.parametrize(("split", "message"), FAULTS.values(), ids=FAULTS)
def test_a_table_without_a_test_split_is_refused(
    split: str | None, message: str, folder: PhotoFolder, tmp_path: Path
) -> None:
    table = folder.table.drop(columns="official_split")
    folder.table = table if split is None else table.assign(official_split=split)
    folder.write()
    with pytest.raises(ValueError, match=message):
        find_labels(folder.root, tmp_path / "own.csv")
    assert not (tmp_path / "own.csv").exists()


@pytest.mark.parametrize("make", [lambda _: None, Path.mkdir], ids=["missing", "empty"])
def test_a_folder_without_photos_loses_nothing(
    make: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> str:
        raise AssertionError("an experiment was started")

    monkeypatch.setattr(photographs, "run_experiment", refuse)
    monkeypatch.chdir(tmp_path)
    assert callable(make)
    make(tmp_path / "photos")
    Path("reports").mkdir()
    Path("reports/photographs.json").write_text("{}")
    with pytest.raises(SystemExit) as ended:
        main(["photos"])
    assert ended.value.code == 2
    assert "docs/photographs.md" in capsys.readouterr().err
    assert Path("reports/photographs.json").read_text() == "{}"


def test_rows_are_kept_with_add_and_only_of_the_same_labels(
    folder: PhotoFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(name: str, settings: Mapping[str, object], targets: Sequence[str]) -> str:
        assert settings["data.root"] == f'"{folder.root}"'
        assert settings["data.labels"] == f'"{tmp_path / ".resume/photographs/labels.csv"}"'
        started.append((name, *targets))
        return name

    def read(name: str, candidate: PhotographCandidate, revision: str) -> tuple[object, list[PhotographResult]]:
        return PHOTOS, [result_of(name, model, len(started)) for model in candidate.models]

    def rows() -> list[tuple[str, str, int]]:
        results = json.loads(photographs.REPORT.read_text(encoding="utf-8"))["results"]
        return [(row["candidate"], row["model"], row["top1_right"].count("1")) for row in results]

    started: list[tuple[str, ...]] = []
    monkeypatch.setattr(photographs, "run_experiment", run)
    monkeypatch.setattr(photographs, "read_experiment", read)
    monkeypatch.chdir(tmp_path)
    Path("reports").mkdir()
    Path("params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    main([str(folder.root), "--only", "efficientnet-package"])
    main([str(folder.root), "--only", "efficientnet-random", "efficientnet-quick", "--add"])
    main([str(folder.root), "--only", "efficientnet-package", "--add"])
    assert started[0] == ("photographs-efficientnet-package", "evaluate@single_task")
    assert rows() == [
        ("efficientnet-package", "single_task", 4),
        ("efficientnet-random", "single_task", 2),
        ("efficientnet-quick", "multi_task", 3),
        ("efficientnet-quick", "hybrid", 3),
    ]
    gone = {name: made for name, made in CANDIDATES.items() if name != "efficientnet-random"}
    with monkeypatch.context() as patch:
        patch.setattr(photographs, "load_candidates", lambda: gone)
        known = read_known(find_labels(folder.root, photographs.SPLIT_TABLE)[1])
    assert {result.candidate for result in known} == {"efficientnet-package", "efficientnet-quick"}
    folder.table = folder.table.iloc[1:]
    folder.write()
    with pytest.raises(SystemExit):
        main([str(folder.root), "--add"])
    assert "leave out --add" in capsys.readouterr().err
    assert len(started) == 4
    main([str(folder.root), "--only", "efficientnet-quick"])
    assert rows() == [("efficientnet-quick", "multi_task", 5), ("efficientnet-quick", "hybrid", 5)]


def test_intervals_are_wilsons_and_paired() -> None:
    """By Wilson's formula: 30 of 40 right are 0.598 to 0.858. With all right, 1 / (1 + 1.96² / 40) is the lower end."""
    study = PhotographStudy(PHOTOS, every_result(), 0.95, 500)
    usual, best = (study.interval(study.results[0], metric) for metric in ("type_top1", "type_top5"))
    assert usual.low == pytest.approx(0.5981, abs=1e-4)
    assert usual.high == pytest.approx(0.8581, abs=1e-4)
    assert best.low == pytest.approx(1 / (1 + 1.959964**2 / 40))
    assert best.high == pytest.approx(1)
    difference = study.differences()[AIM_COMPARED]
    assert difference.estimate == pytest.approx(0.5)
    assert difference.low < 0.5 < difference.high
    same = study.differences()["bundled weights: hybrid over multi-task"]
    assert (same.low, same.estimate, same.high) == (0, 0, 0)  # paired: the same photos right


@pytest.mark.parametrize(("bundled", "verdict"), [(16, "is reached"), (15, "is not reached")])
def test_the_page_has_every_model_and_says_whether_the_aim_is_reached(bundled: int, verdict: str) -> None:
    page = photographs_page(PhotographStudy(PHOTOS, every_result(bundled), 0.95, 500))
    assert verdict in page
    assert page.count("| single-task |") == 4
    assert "| `tf_efficientnet_lite0`, `swin_thin` | package, bundled |" in page
    assert "40 test photos of 2 types" in page
    assert "25 %" in page


def test_a_page_of_one_candidate_compares_nothing() -> None:
    page = photographs_page(PhotographStudy(PHOTOS, every_result()[:1], 0.95, 500))
    assert "compared" not in page
    assert "aim" not in page


def test_the_chinese_page_has_a_word_for_every_comparison() -> None:
    page = photographs_page(PhotographStudy(PHOTOS, every_result(), 0.95, 500))
    assert len(chinese_tables(page)) == 2


def test_the_chart_shows_every_model_from_any_weights(tmp_path: Path) -> None:
    study = PhotographStudy(PHOTOS, every_result(), 0.95, 500)
    draw_photographs(study, tmp_path / "all.png")
    few = PhotographStudy(PHOTOS, (replace(every_result()[0], weights="hub"),), 0.95, 500)
    draw_photographs(few, tmp_path / "few.png")
    sizes = [Image.open(tmp_path / name).size for name in ("all.png", "few.png")]
    assert sizes[0][1] > sizes[1][1]


@pytest.mark.slow
def test_models_are_measured_on_photos_of_a_folder(
    folder: PhotoFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through DVC, in a clone on a shrunken recipe, in a folder whose name has brackets."""
    clone = clone_on_a_shrunken_recipe(tmp_path / "clone")
    monkeypatch.chdir(clone)
    for name in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{name}_NAME", "Test")
        monkeypatch.setenv(f"GIT_{name}_EMAIL", "test@example.invalid")
    one = {"convnext-bundled": replace(CANDIDATES["convnext-bundled"], models=("single_task",))}
    monkeypatch.setattr(photographs, "load_candidates", lambda: one)
    main([str(folder.root), "--only", "convnext-bundled"])
    _, sha256 = find_labels(folder.root, photographs.SPLIT_TABLE)
    results = read_known(sha256)
    assert [result.model for result in results] == ["single_task"]
    assert all(len(result.top1_right) == 20 and result.seconds > 0 for result in results)
    content = json.loads(photographs.REPORT.read_text(encoding="utf-8"))
    assert content["photos"]["test"] == 20
    assert content["photos"]["types"] == 2
    assert Path("reports/photographs.png").is_file()
    written = (path.read_text(encoding="utf-8") for path in Path("reports").glob("photographs.[jm]*"))
    assert _without_paths(written)


def _without_paths(texts: Iterable[str]) -> bool:
    return not any("/tmp" in text or "photos (mine)" in text for text in texts)
