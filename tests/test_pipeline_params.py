"""Whatever can be wrong in `params.yaml` is refused, field by field, with a message that helps.

The fields are taken from the schema, so that a new one is tested by being there.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from types import NoneType
from typing import Any, Literal, NamedTuple, TypeGuard, get_args, get_origin

import pytest
from pydantic import BaseModel

from aerofuse.common.params import find_place, read_params_file, resolve, validate
from aerofuse.pipeline_params import Params
from aerofuse.training.params import TrainingParams

REAL = read_params_file(Path(__file__).parents[1] / "params.yaml")
RECIPES = list(REAL["recipes"])
RECIPE = "small"  # through which the schema of all recipes is tested


class Field(NamedTuple):
    """A field of the schema, such as `recipes.small.training.num_workers`, and where its value stands in the file."""

    path: tuple[str, ...]
    place: tuple[str, ...]
    annotation: Any
    required: bool

    def __str__(self) -> str:
        return ".".join(self.place)


def place_of(path: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(str(part) for part in find_place(REAL, path))


def is_section(kind: Any) -> TypeGuard[type[BaseModel]]:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def sections(schema: type[BaseModel], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], type[BaseModel]]]:
    """Every section with its schema, from the whole down; all recipes have the schema of the one."""
    yield path, schema
    for name, field in schema.model_fields.items():
        kind: Any = field.annotation
        if get_origin(kind) is dict and is_section(get_args(kind)[1]):
            yield from sections(get_args(kind)[1], (*path, name, RECIPE))
        elif is_section(kind):
            yield from sections(kind, (*path, name))


def is_leaf(annotation: Any) -> bool:
    return get_origin(annotation) is not dict and not is_section(annotation)


def at(content: dict[str, Any], path: tuple[str, ...]) -> Any:
    """What stands in the file at `path`."""
    found: Any = content
    for name in path:
        found = found[name]
    return found


def changed(path: tuple[str, ...], value: object) -> dict[str, Any]:
    """The real file with `value` at `path`."""
    content = copy.deepcopy(REAL)
    at(content, path[:-1])[path[-1]] = value
    return content


def refusal(content: object) -> str:
    """The message with which the content is refused."""
    with pytest.raises(ValueError, match="cannot be used") as raised:
        validate(Params, content, "params.yaml")
    return str(raised.value)


SECTIONS = list(sections(Params))
LEAVES = [
    Field((*path, name), place_of((*path, name)), field.annotation, field.is_required())
    for path, schema in SECTIONS
    for name, field in schema.model_fields.items()
    if is_leaf(field.annotation)
]


def wrong_values(annotation: Any) -> list[object]:
    """Values that someone might write there, none of which is of the type."""
    optional = NoneType in get_args(annotation)
    kinds = {kind for kind in get_args(annotation) or (annotation,) if kind is not NoneType}
    if get_origin(annotation) is Literal or all(get_origin(kind) is Literal for kind in kinds):
        wrong: list[object] = ["something else", False, 3]
    elif annotation is bool:
        wrong = ["yes", 1]
    elif kinds <= {int, float}:  # a range of numbers too
        wrong = ["three", "1", True]
    elif kinds == {int, Literal["auto"]}:
        wrong = ["automatic", "1", True, 1.5, 0]
    elif kinds == {int, float, str}:
        wrong = [True, ["a"]]
    elif kinds == {str, dict[str, str]}:
        wrong = [True, "", ["a"], {"train": "a"}, {"train": "a", "test": ""}, {"train": "a", "test": "b", "dev": "c"}]
    elif kinds == {list[str]}:
        wrong = ["A320", 3, True, []]
    else:
        assert kinds == {str}, f"say here what is wrong for {annotation}"
        wrong = [3, True, ["a"]]
    return wrong if optional else [*wrong, None]


def test_the_real_file_is_walked_to_its_end() -> None:
    names = {str(leaf) for leaf in LEAVES}
    assert {"seed", "data.synthetic.num_images", "recipes.small.train_stage_c.learning_rate"} <= names
    assert {"recipes.small.weights.allow_random", "data.split.train"} <= names
    assert {"training.num_workers", "training.augmentation.color_jitter"} <= names
    assert "recipes.small.training.mixed_precision" in names


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_validates(recipe: str) -> None:
    params = validate(Params, changed(("recipe",), recipe), "params.yaml")
    assert params.active is params.recipes[recipe]
    assert params.active.image_size == REAL["recipes"][recipe]["image_size"]


def test_in_every_recipe_the_backbones_of_every_model_see_a_photo_equally_often() -> None:
    """The rule of the comparison; in phase A the heads may learn from features of fewer views than it has epochs."""
    for recipe in validate(Params, REAL, "params.yaml").recipes.values():
        views = recipe.training.feature_views or recipe.train_stage_a.epochs
        assert views <= recipe.train_stage_a.epochs
        hybrid = views + recipe.train_stage_b.epochs + recipe.train_stage_c.epochs
        assert recipe.train_single_task.epochs == recipe.train_multi_task.epochs == hybrid


PATHS = ("root", "labels", "cnn_file", "transformer_file", "plan", "folder")


@pytest.mark.parametrize("leaf", [leaf for leaf in LEAVES if leaf.path[-1] in PATHS], ids=str)
def test_a_path_is_text_with_the_home_folder_expanded(leaf: Field) -> None:
    for written, meant in (
        (2024, "2024"),
        (2024.5, "2024.5"),
        ("~/photos", f"{Path.home()}/photos"),
        ("~", str(Path.home())),
    ):
        content = changed(leaf.place, written)
        content["training"]["gradient_checkpointing"]["policy"] = "plan" if leaf.path[-1] == "plan" else "none"
        found: Any = validate(Params, content, "params.yaml").model_dump()
        for key in leaf.path:
            found = found[key]
        assert found == meant


@pytest.mark.parametrize("name", ["root", "labels"])
def test_photos_and_tables_may_be_given_by_split(name: str) -> None:
    content = changed(("data", name), {"Train": "~/a", " val ": 2024, "test": "c"})
    content["data"]["source"] = "table"
    data = validate(Params, content, "params.yaml").data
    assert getattr(data, name) == {"train": f"{Path.home()}/a", "validation": "2024", "test": "c"}
    assert data.inputs[f"{name}.validation"] == Path("2024")


def test_an_aircraft_that_fills_its_box_is_not_cropped_again() -> None:
    content = changed(("data", "crop", "to_box"), True)
    content["data"] |= {"source": "fgvc", "fit": "stretch"}
    validate(Params, content, "params.yaml")
    content["data"]["fit"] = "crop"
    assert "set data.fit to letterbox or stretch, or data.crop.to_box to false" in refusal(content)


def test_an_archive_is_one() -> None:
    content = changed(("data", "root"), {"train": "a", "test": "b"})
    content["data"]["source"] = "fgvc"
    assert "FGVC-Aircraft is one archive; write its path" in refusal(content)


@pytest.mark.parametrize("leaf", LEAVES, ids=str)
def test_a_value_of_the_wrong_type_is_refused_by_name(leaf: Field) -> None:
    for value in wrong_values(leaf.annotation):
        if value == 3 and leaf.path[-1] in PATHS:
            continue  # a file or folder with that name
        message = refusal(changed(leaf.place, value))
        assert message.count(f"{leaf}: {value!r} is not allowed: ") == 1


@pytest.mark.parametrize("leaf", [leaf for leaf in LEAVES if leaf.required], ids=str)
def test_a_field_that_is_left_out_is_named(leaf: Field) -> None:
    content = copy.deepcopy(REAL)
    del at(content, leaf.place[:-1])[leaf.place[-1]]
    assert f"{'.'.join(leaf.path)}: missing" in refusal(content)


SECTIONS_IN_FILE = {place_of(path): schema for path, schema in SECTIONS} | {("training",): TrainingParams}


@pytest.mark.parametrize("path", SECTIONS_IN_FILE, ids=".".join)
def test_a_misspelled_name_is_refused_with_the_right_one(path: tuple[str, ...]) -> None:
    schema = SECTIONS_IN_FILE[path]
    known = next(iter(schema.model_fields))
    misspelled = f"{known}x"
    message = refusal(changed((*path, misspelled), 1))
    assert f"{'.'.join((*path, misspelled))}: unknown name; did you mean {known!r}?" in message
    assert f"Allowed here: {', '.join(schema.model_fields)}" in message


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("recipe", "quik", f"recipe is 'quik'; params.yaml has the recipes {', '.join(RECIPES)}"),
        ("fusion_method", "bogus", "fusion_method: 'bogus' is not allowed: Input should be 'concat', 'add', "),
        (
            "recipes.quick.train_stage_a.epochs",
            0,
            "epochs: 0 is not allowed: Input should be greater than or equal to 1",
        ),
        (
            "recipes.quick.train_stage_a.epochs",
            "three",
            "epochs: 'three' is not allowed: Input should be a valid integer",
        ),
        ("recipes.quick.train_stage_a.epochs", 2.5, "epochs: 2.5 is not allowed: "),
        (
            "recipes.quick.train_stage_a.batch_size",
            "automatic",
            "recipes.quick.train_stage_a.batch_size: 'automatic' is not allowed: "
            "write a number of images, at least 1, or auto",
        ),
        ("training.largest_batch_size", 0, "largest_batch_size: 0 is not allowed: "),
        ("training.memory_reserve", 1.0, "memory_reserve: 1.0 is not allowed: "),
        (
            "training.gradient_checkpointing",
            {"policy": "segments", "segments": 3, "budget": 0.5},
            "budget is 0.5, but policy is segments; set policy to budget, or budget to null",
        ),
        (
            "training.gradient_checkpointing.segments",
            4,
            "segments is 4, but policy is none; set policy to segments, or segments to null",
        ),
        (
            "training.gradient_checkpointing.policy",
            "plan",
            "policy is plan, but plan is null; give plan too, or choose another policy",
        ),
        (
            "training.gradient_checkpointing.policy",
            "recompute",
            "Input should be 'none', 'recompute_all', 'selective', 'segments', 'budget' or 'plan'",
        ),
        ("training.gradient_checkpointing.enabled", True, "unknown name. Allowed here: policy, segments, budget, plan"),
        ("training.save_state_every", 0, "save_state_every: 0 is not allowed: "),
        ("training.on_out_of_memory", "give_up", "Input should be 'fail', 'split' or"),
        ("recipes.large.training.mixed_precision", "fp16", "fsdp goes with mixed_precision bf16 or no"),
        ("launch.processes", 0, "processes: 0 is not allowed: "),
        ("recipes.quick.train_stage_a.learning_rate", -1.0, "learning_rate: -1.0 is not allowed: "),
        ("data.split.train", 0.8, "train + validation + test must be 1, not 1.1"),
        ("data.shards.size", "much", "data.shards.size: 'much' is not allowed: 'much' is no size; write a number"),
        ("data.shards.url", "s3://bucket/a", "url is given, and size is null; write a size such as 256 MB"),
        ("shard_cache.size", "12 parsecs", "shard_cache.size: '12 parsecs' is not allowed: '12 parsecs' is no size"),
        ("data.leaks", "keep", "data.leaks: 'keep' is not allowed: Input should be 'report', 'move' or 'refuse'"),
        ("data.fit", "stretch", "data.source is synthetic, whose photos are square; set data.fit to letterbox, or"),
        ("data.min_photos", -1, "data.min_photos: -1 is not allowed: "),
        ("data.min_photos", 5, "data.source is synthetic; set only_types to null and min_photos to 1, or choose"),
        ("data.only_types", ["A320"], "data.only_types and data.min_photos choose among photos of your own"),
        ("data.labels", {"train": "a", "Val": "b"}, "test is missing; only validation may be left out"),
        ("data.labels", {"train": "a", "val": "b", "valid": "c", "test": "d"}, "write one path for validation"),
        ("data.root", {"train": "a", "tset": "b"}, "write train, validation or test"),
        ("data.root", None, "write a path, or one for each of train, validation and test"),
        ("recipes.base.weights", {"source": "none"}, "set allow_random: true if that is meant"),
        ("recipes.base.weights", {"source": "file", "cnn_file": "a"}, "needs cnn_file and transformer_file"),
        ("training", None, "training: None is not allowed: "),
        ("recipes.base.training", None, "recipes.base.training: None is not allowed: "),
        ("recipes", {}, "recipes: {} is not allowed: "),
        ("recipes.base", None, "recipes.base: None is not allowed: "),
        ("recipes.base.weights.zzz", 1, "recipes.base.weights.zzz: unknown name. Allowed here: source, "),
    ],
)
def test_messages_say_what_is_wrong_and_what_is_right(path: str, value: object, expected: str) -> None:
    assert expected in refusal(changed(tuple(path.split(".")), value))


def test_a_recipe_overrides_key_by_key() -> None:
    content = changed(("recipes", "base", "training", "task_weights"), {"block": 0.1})
    content["training"]["gradient_clip"] = 2
    base, large = (validate(Params, content, "params.yaml").recipes[name].training for name in ("base", "large"))
    assert base.task_weights.model_dump() == large.task_weights.model_dump() | {"block": 0.1}
    assert base.gradient_clip == large.gradient_clip == 2
    assert (base.parallelism, large.parallelism) == ("ddp", "fsdp")
    assert content["recipes"]["base"]["training"]["task_weights"] == {"block": 0.1}


@pytest.mark.parametrize(
    ("place", "value", "expected"),
    [
        ("training.gradient_clip", -1, "training.gradient_clip: -1 is not allowed: "),
        ("recipes.base.training.gradient_clip", -1, "recipes.base.training.gradient_clip: -1 is not allowed: "),
        ("recipes.base.training.num_workerz", 1, "recipes.base.training.num_workerz: unknown name; did you mean "),
        ("training.num_workerz", 1, "training.num_workerz: unknown name; did you mean 'num_workers'?"),
        (
            "recipes.base.training.augmentation",
            {"color_gitter": 1.0},
            "recipes.base.training.augmentation.color_gitter: unknown name; did you mean 'color_jitter'?",
        ),
        (
            "recipes.base.training.gradient_checkpointing",
            {"policy": "segments"},
            "recipes.base.training.gradient_checkpointing: ",
        ),
    ],
)
def test_a_bad_value_is_named_once_where_it_stands(place: str, value: object, expected: str) -> None:
    _, *lines = refusal(changed(tuple(place.split(".")), value)).splitlines()
    assert len(lines) == 1
    assert lines[0].strip().startswith(expected)


def test_a_value_that_stands_nowhere_is_missing_in_both_places() -> None:
    content = copy.deepcopy(REAL)
    del content["training"]["gradient_clip"]
    assert "recipes.quick.training.gradient_clip: missing, here and in the section training" in refusal(content)


def test_a_file_is_resolved_without_being_changed() -> None:
    before = copy.deepcopy(REAL)
    assert resolve(resolve(REAL)) == resolve(REAL) != REAL == before


def test_random_weights_are_allowed_when_they_are_meant() -> None:
    weights = {"source": "none", "allow_random": True}
    params = validate(Params, changed(("recipes", "quick", "weights"), weights), "params.yaml")
    assert params.recipes["quick"].weights.source == "none"


@pytest.mark.parametrize("budget", ["auto", "12 GiB", 0.5, 6 * 2**30])
@pytest.mark.parametrize("batch_size", ["auto", 48])
def test_what_auto_stands_beside(budget: object, batch_size: object) -> None:
    settings = {"policy": "budget", "budget": budget}
    content = changed(("training", "gradient_checkpointing"), settings)
    content["recipes"]["quick"]["train_stage_c"]["batch_size"] = batch_size
    recipe = validate(Params, content, "params.yaml").recipes["quick"]
    assert recipe.training.gradient_checkpointing.budget == budget
    assert recipe.train_stage_c.batch_size == batch_size


def test_all_mistakes_are_named_at_once() -> None:
    content = changed(("seed",), -1)
    content["fusion_method"] = "bogus"
    content["recipes"]["base"]["image_size"] = 8
    message = refusal(content)
    assert all(field in message for field in ("seed: -1", "fusion_method: 'bogus'", "recipes.base.image_size: 8"))
