"""Reading `params.yaml`: whole, by section, by value, and as DVC writes it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from aerofuse.common.params import load_section, load_value, read_params_file
from aerofuse.metrics.params import CompareParams
from aerofuse.models.fusion import FusionMethod
from aerofuse.training.params import PhaseParams, TrainingParams

REAL_FILE = Path(__file__).parents[2] / "params.yaml"


def write(folder: Path, text: str) -> Path:
    path = folder / "params.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_missing_file_names_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="run from the root of the repository"):
        read_params_file(tmp_path / "params.yaml")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("seed: 0\nrecipe: [", "not valid YAML: .*line 2"),
        ("seed: 0\nseed: 1", 'not valid YAML: found duplicate key "seed".*line 2'),
        ("- seed", "`name: value` pairs, not list"),
        ("", "`name: value` pairs, not NoneType"),
    ],
)
def test_what_is_not_a_mapping_is_refused(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        read_params_file(write(tmp_path, text))


def test_a_file_rewritten_by_dvc_reads_the_same(tmp_path: Path) -> None:
    """`dvc exp run -S` loads and dumps the file like this: `"no"` loses its quotes, 5.0e-5 becomes 5e-05."""
    yaml = YAML()
    yaml.default_flow_style = False
    content: Any = yaml.load(REAL_FILE.read_text(encoding="utf-8"))
    content["recipes"]["base"]["train_stage_b"]["learning_rate"] = 7e-05
    rewritten = tmp_path / "params.yaml"
    with rewritten.open("w", encoding="utf-8") as file:
        yaml.dump(content, file)
    assert "mixed_precision: no" in rewritten.read_text(encoding="utf-8")
    expected = read_params_file(REAL_FILE)
    expected["recipes"]["base"]["train_stage_b"]["learning_rate"] = 7e-05
    assert read_params_file(rewritten) == expected


def test_a_file_is_parsed_once_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, "seed: 3\ndata: {split: {train: 0.7}}")
    content = read_params_file(path)
    content["data"]["split"]["train"] = 0.1  # the caller's own copy
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_text", lambda *_, **__: pytest.fail("the file is read again"))
        assert read_params_file(path)["data"]["split"]["train"] == 0.7
        assert load_value(int, "seed", path) == 3
    os.utime(write(tmp_path, "seed: 4\ndata: {split: {train: 0.7}}"), ns=(1, 1))  # of the same size
    assert load_value(int, "seed", path) == 4
    assert load_value(int, "seed", write(tmp_path, "seed: 500")) == 500


def test_a_section_is_found_by_name_and_by_recipe(tmp_path: Path) -> None:
    assert 0.5 < load_section(CompareParams, "compare", REAL_FILE).confidence_level < 1
    other = write(tmp_path, REAL_FILE.read_text(encoding="utf-8").replace("recipe: quick", "recipe: base", 1))
    assert load_section(TrainingParams, "recipes.{recipe}.training", other).mixed_precision == "bf16"
    assert load_section(PhaseParams, "recipes.{recipe}.train_stage_c", other).learning_rate == 1e-5


def test_a_section_that_is_missing_or_bad_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, "recipe: quik\nrecipes: {quick: {}}\ncompare: {confidence_level: 2.0}")
    with pytest.raises(ValueError, match=r"no 'recipes.quik.training' \(missing: 'quik'\)"):
        load_section(TrainingParams, "recipes.{recipe}.training", path)
    with pytest.raises(ValueError, match=r"section 'compare' cannot be used:\n  confidence_level: 2.0 is not allowed"):
        load_section(CompareParams, "compare", path)


def test_the_section_of_a_recipe_is_complete_and_names_where_a_bad_value_stands(tmp_path: Path) -> None:
    text = REAL_FILE.read_text(encoding="utf-8")
    assert load_section(TrainingParams, "recipes.large.training", REAL_FILE).gradient_clip == 1.0
    assert load_value(float, "recipes.large.training.gradient_clip", REAL_FILE) == 1.0
    path = write(tmp_path, text.replace("gradient_clip: 1.0", "gradient_clip: -1.0"))
    with pytest.raises(ValueError, match=r"\n  training.gradient_clip: -1.0 is not allowed"):
        load_section(TrainingParams, "recipes.large.training", path)
    path = write(tmp_path, text.replace("parallelism: fsdp", "parallelism: zero"))
    with pytest.raises(ValueError, match=r"'recipes.large.training' cannot be used:\n  parallelism: 'zero' is not"):
        load_section(TrainingParams, "recipes.large.training", path)


def test_a_value_is_checked_too(tmp_path: Path) -> None:
    path = write(tmp_path, "seed: 3\nfusion_method: bogus")
    assert load_value(int, "seed", path) == 3
    with pytest.raises(ValueError, match="fusion_method is 'bogus': Input should be 'concat', 'add', "):
        load_value(FusionMethod, "fusion_method", path)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="seed is 3: Input should be a valid string"):
        load_value(str, "seed", path)
    with pytest.raises(ValueError, match="has no 'nothing'"):
        load_value(int, "nothing", path)
