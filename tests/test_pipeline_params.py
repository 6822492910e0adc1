"""Whatever can be wrong in `params.yaml` is refused, field by field, with a message that helps.

The fields are taken from the schema, so that a new one is tested by being there.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from types import NoneType
from typing import Any, Literal, NamedTuple, get_args, get_origin

import pytest
from pydantic import BaseModel

from aerofuse.common.params import read_params_file, validate
from aerofuse.pipeline_params import Params

REAL = read_params_file(Path(__file__).parents[1] / "params.yaml")
RECIPES = list(REAL["recipes"])


class Field(NamedTuple):
    """A place in the file, such as `recipes.base.training.num_workers`, and what the schema says of it."""

    path: tuple[str, ...]
    annotation: Any
    required: bool

    def __str__(self) -> str:
        return ".".join(self.path)


def sections(schema: type[BaseModel], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], type[BaseModel]]]:
    """Every section of the real file with its schema, from the whole down."""
    yield path, schema
    for name, field in schema.model_fields.items():
        kind = field.annotation
        if get_origin(kind) is dict:
            for key in at(REAL, (*path, name)):
                yield from sections(get_args(kind)[1], (*path, name, key))
        elif isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from sections(kind, (*path, name))


def is_leaf(annotation: Any) -> bool:
    return get_origin(annotation) is not dict and not (
        isinstance(annotation, type) and issubclass(annotation, BaseModel)
    )


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
    Field((*path, name), field.annotation, field.is_required())
    for path, schema in SECTIONS
    for name, field in schema.model_fields.items()
    if is_leaf(field.annotation)
]


def wrong_values(annotation: Any) -> list[object]:
    """Values that someone might write there, none of which is of the type."""
    optional = NoneType in get_args(annotation)
    kinds = {kind for kind in get_args(annotation) or (annotation,) if kind is not NoneType}
    if get_origin(annotation) is Literal:
        wrong: list[object] = ["something else", False, 3]
    elif annotation is bool:
        wrong = ["yes", 1]
    elif kinds <= {int, float}:  # a range of numbers too
        wrong = ["three", "1", True]
    elif kinds == {int, Literal["auto"]}:
        wrong = ["automatic", "1", True, 1.5, 0]
    elif kinds == {int, float, str}:
        wrong = [True, ["a"]]
    else:
        assert kinds == {str}, f"say here what is wrong for {annotation}"
        wrong = [3, True, ["a"]]
    return wrong if optional else [*wrong, None]


CASES = [(leaf, value) for leaf in LEAVES for value in wrong_values(leaf.annotation)]


def test_the_real_file_is_walked_to_its_end() -> None:
    names = {str(leaf) for leaf in LEAVES}
    assert {"seed", "data.synthetic.num_images", "recipes.large.train_stage_c.learning_rate"} <= names
    assert {"recipes.quick.weights.allow_random", "data.split.train"} <= names


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_validates(recipe: str) -> None:
    params = validate(Params, changed(("recipe",), recipe), "params.yaml")
    assert params.active is params.recipes[recipe]
    assert params.active.image_size == REAL["recipes"][recipe]["image_size"]


def test_every_recipe_spends_the_same_epochs_on_every_model() -> None:
    """The rule of the comparison: the phases of the hybrid together get what each baseline gets."""
    for recipe in validate(Params, REAL, "params.yaml").recipes.values():
        phases = (recipe.train_stage_a, recipe.train_stage_b, recipe.train_stage_c)
        hybrid = sum(phase.epochs for phase in phases)
        assert recipe.train_single_task.epochs == recipe.train_multi_task.epochs == hybrid


@pytest.mark.parametrize(("leaf", "value"), CASES, ids=[f"{leaf}={value!r}" for leaf, value in CASES])
def test_a_value_of_the_wrong_type_is_refused_by_name(leaf: Field, value: object) -> None:
    message = refusal(changed(leaf.path, value))
    assert f"{leaf}: {value!r} is not allowed: " in message


@pytest.mark.parametrize("leaf", [leaf for leaf in LEAVES if leaf.required], ids=str)
def test_a_field_that_is_left_out_is_named(leaf: Field) -> None:
    content = copy.deepcopy(REAL)
    del at(content, leaf.path[:-1])[leaf.path[-1]]
    assert f"{leaf}: missing" in refusal(content)


@pytest.mark.parametrize(("path", "schema"), SECTIONS, ids=[".".join(path) or "top" for path, _ in SECTIONS])
def test_a_misspelled_name_is_refused_with_the_right_one(path: tuple[str, ...], schema: type[BaseModel]) -> None:
    known = next(iter(schema.model_fields))
    misspelled = f"{known}x"
    message = refusal(changed((*path, misspelled), 1))
    assert f"{'.'.join((*path, misspelled))}: unknown name; did you mean {known!r}?" in message
    assert f"Allowed here: {', '.join(schema.model_fields)}" in message


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("recipe", "quik", f"recipe is 'quik'; params.yaml has the recipes {', '.join(RECIPES)}"),
        (
            "fusion_method",
            "bogus",
            "fusion_method: 'bogus' is not allowed: Input should be 'concat', 'add' or 'attention'",
        ),
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
        ("recipes.quick.training.largest_batch_size", 0, "largest_batch_size: 0 is not allowed: "),
        ("recipes.quick.training.memory_reserve", 1.0, "memory_reserve: 1.0 is not allowed: "),
        (
            "recipes.quick.training.gradient_checkpointing",
            {"policy": "segments", "segments": 3, "budget": 0.5},
            "budget is 0.5, but policy is segments; set policy to budget, or budget to null",
        ),
        (
            "recipes.quick.training.gradient_checkpointing.segments",
            4,
            "segments is 4, but policy is none; set policy to segments, or segments to null",
        ),
        (
            "recipes.quick.training.gradient_checkpointing.policy",
            "plan",
            "policy is plan, but plan is null; give plan too, or choose another policy",
        ),
        (
            "recipes.quick.training.gradient_checkpointing.policy",
            "recompute",
            "Input should be 'none', 'recompute_all', 'selective', 'segments', 'budget' or 'plan'",
        ),
        (
            "recipes.quick.training.gradient_checkpointing.enabled",
            True,
            "unknown name. Allowed here: policy, segments, budget, plan",
        ),
        ("recipes.quick.training.save_state_every", 0, "save_state_every: 0 is not allowed: "),
        ("recipes.quick.training.on_out_of_memory", "give_up", "Input should be 'fail', 'split' or"),
        ("recipes.large.training.mixed_precision", "fp16", "fsdp goes with mixed_precision bf16 or no"),
        ("launch.processes", 0, "processes: 0 is not allowed: "),
        ("recipes.quick.train_stage_a.learning_rate", -1.0, "learning_rate: -1.0 is not allowed: "),
        ("data.split.train", 0.8, "train + validation + test must be 1, not 1.1"),
        ("recipes.base.weights", {"source": "none"}, "set allow_random: true if that is meant"),
        ("recipes.base.weights", {"source": "file", "cnn_file": "a"}, "needs cnn_file and transformer_file"),
        ("recipes", {}, "recipes: {} is not allowed: "),
        ("recipes.base", None, "recipes.base: None is not allowed: "),
        ("recipes.base.weights.zzz", 1, "recipes.base.weights.zzz: unknown name. Allowed here: source, "),
    ],
)
def test_messages_say_what_is_wrong_and_what_is_right(path: str, value: object, expected: str) -> None:
    assert expected in refusal(changed(tuple(path.split(".")), value))


def test_random_weights_are_allowed_when_they_are_meant() -> None:
    weights = {"source": "none", "allow_random": True}
    params = validate(Params, changed(("recipes", "quick", "weights"), weights), "params.yaml")
    assert params.recipes["quick"].weights.source == "none"


@pytest.mark.parametrize("budget", ["auto", "12 GiB", 0.5, 6 * 2**30])
@pytest.mark.parametrize("batch_size", ["auto", 48])
def test_what_auto_stands_beside(budget: object, batch_size: object) -> None:
    settings = {"policy": "budget", "budget": budget}
    content = changed(("recipes", "quick", "training", "gradient_checkpointing"), settings)
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
