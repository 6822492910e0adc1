"""What a run of a unit has made: which results have recipes, which storages live, and what autograd saved of them."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, UntypedStorage

from aerofuse.checkpointing.recompute import hand_over
from aerofuse.checkpointing.recompute_nodes import Kept, Recipe, Saved, View, depends_on, storage_key, unpack
from aerofuse.checkpointing.snapshot import Autocast, RandomState


def _write_over(func: Callable[..., Tensor], target: Tensor, *args: Any, copying: bool, **keywords: Any) -> Tensor:
    """`func` in place on `target`, or where it is `copying` on a copy, which belongs to what that takes."""
    return func(target.clone() if copying else target, *args, **keywords)


@dataclass(frozen=True)
class Call:
    """One call inside a unit whose result could be computed again.

    `sources` are the calls whose results it reads; `saved` says whether autograd wants the result, `is_output`
    whether it is what the unit returns.
    """

    name: str
    num_bytes: int
    sources: tuple[str, ...]
    saved: bool
    is_output: bool


class RecipeBook:
    """Recipes by the storage that they make, for one run of one unit, or of units that are linked.

    With `sparing`, what is computed on the way to a tensor is not held for others that need it.
    """

    def __init__(self, autocast: Autocast, sparing: bool) -> None:
        self._autocast = autocast
        self._sparing = sparing
        # By storage, for as long as it lives; its address may be that of another one afterwards.
        self._alive: dict[int, weakref.ref[UntypedStorage]] = {}
        self._recipes: dict[int, Recipe] = {}
        self._references: dict[int, list[Kept]] = {}
        self._lower: dict[int, dict[tuple[Any, ...], Tensor]] = {}
        self._saved: set[int] = set()
        # What was saved while the current call ran: it may have been the call's own result.
        self._just_saved: dict[int, list[Saved]] = {}
        self._saved_recipes: dict[Recipe, None] = {}
        self._called: dict[Recipe, str] = {}

    # ----- calls

    def begin_call(self) -> None:
        """What autograd saves from here on may be the result of the call that begins."""
        self._just_saved.clear()

    def register(self, tensor: Tensor) -> bool:
        """Know the storage from now on; whether it is a new one."""
        storage = tensor.untyped_storage()
        key = storage_key(tensor)
        if key in self._alive or key in self._references:
            return False
        self._alive[key] = weakref.ref(storage, partial(self._forget, key))
        return True

    def _forget(self, key: int, _reference: weakref.ref[UntypedStorage]) -> None:
        self._alive.pop(key, None)
        self._recipes.pop(key, None)
        self._lower.pop(key, None)
        self._saved.discard(key)

    def lower_precision_of(self, tensor: Tensor) -> dict[tuple[Any, ...], Tensor]:
        """Copies of a storage in autocast's precision, to be filled; they go with it."""
        self.register(tensor)
        return self._lower.setdefault(storage_key(tensor), {})

    def find(self, tensor: Tensor) -> Recipe | None:
        """The recipe of a tensor's storage."""
        return self._recipes.get(storage_key(tensor))

    def write(
        self,
        func: Callable[..., Any],
        args: Sequence[Any],
        keywords: Mapping[str, Any],
        output: Tensor,
        random: RandomState | None = None,
    ) -> Recipe:
        """The recipe of `output`, which `func` made of these arguments."""
        references = [self.refer(argument) for argument in args]
        named = {key: self.refer(argument) for key, argument in keywords.items()}
        return Recipe(func, references, named, self._autocast, output, random, shares=not self._sparing)

    def write_in_place(
        self, func: Callable[..., Any], references: Sequence[Any], named: Mapping[str, Any], target: Tensor
    ) -> Recipe:
        """The recipe of `target`, over which `func` wrote; its arguments were referred to before that."""
        function = partial(_write_over, func)
        return Recipe(function, references, named, self._autocast, target, in_place=True, shares=not self._sparing)

    def remember(self, name: str, output: Tensor, recipe: Recipe) -> None:
        """`recipe` makes the storage of `output`, also where the call itself has saved its result."""
        key = storage_key(output)
        self._recipes[key] = recipe
        self._called[recipe] = name
        for saved in self._just_saved.pop(key, ()):
            saved.replace(recipe)
            self._saved_recipes[recipe] = None
            self._saved.discard(key)

    def refer(self, argument: Any) -> Any:
        """Where an argument comes from."""
        if isinstance(argument, Tensor):
            key = storage_key(argument)
            recipe = self._recipes.get(key)
            if recipe is not None and recipe.dtype == argument.dtype:
                return View(recipe, argument)
            kept = Kept(argument)
            self._references.setdefault(key, []).append(kept)
            return kept
        if isinstance(argument, (list, tuple)):
            return type(argument)(self.refer(item) for item in argument)
        return argument

    def take(self, tensor: Tensor) -> Recipe | None:
        """The recipe of a tensor's storage, which is about to be written over and is not what it makes any more."""
        return self._recipes.pop(storage_key(tensor), None)

    def protect_readers(self, target: Tensor) -> None:
        """Recipes that were written down before `target` is written over need what was there before."""
        for kept in self._references.pop(storage_key(target), ()):
            kept.tensor = kept.tensor.clone()
            kept.version = kept.tensor._version

    # ----- saved tensors

    def pack(self, tensor: Tensor) -> Any:
        """What autograd saves of a tensor: how to make it, where there is a recipe."""
        key = storage_key(tensor)
        recipe = self._recipes.get(key)
        if recipe is not None and recipe.dtype == tensor.dtype:
            saved = Saved(View(recipe, tensor))
            self._saved_recipes[recipe] = None
        else:
            saved = Saved(Kept(tensor))
            self._saved.add(key)
            self._just_saved.setdefault(key, []).append(saved)
        return hand_over(saved, unpack, tensor)

    def calls(self, output: Tensor) -> list[Call]:
        """The calls so far whose results have recipes."""
        last = self._recipes.get(storage_key(output))
        return [
            Call(
                name,
                recipe.num_bytes,
                tuple(self._called[source] for source in recipe.sources() if isinstance(source, Recipe)),
                recipe in self._saved_recipes,
                recipe is last,
            )
            for recipe, name in self._called.items()
        ]

    def settle(self, inputs: Tensor, output: Tensor | None, cheap_only: bool) -> None:
        """The unit has ended: choose what is kept, let the rest go.

        With `cheap_only`, recipes hold their values still, and one is kept where that lets more go.
        """
        self._lower.clear()
        held = {*self._saved, storage_key(inputs)}
        if output is not None:
            # The next unit holds it, so it need not be computed again.
            key = storage_key(output)
            held.add(key)
            recipe = self._recipes.get(key)
            if recipe is not None and recipe.dtype == output.dtype:
                recipe.keep(output)
        if cheap_only:
            self._keep_instead_of_larger(held)
        for recipe in self._called:
            if not recipe.is_kept:
                recipe.value = None
        for recipe in self._saved_recipes:
            recipe.require()
        self._alive.clear()
        self._recipes.clear()
        self._called.clear()
        self._references.clear()

    def _keep_instead_of_larger(self, held: set[int]) -> None:
        """Keep a saved tensor rather than recompute it, where that alone would hold something at least as large.

        An attention's softmax is an example: autograd wants its result, and nobody but its recipe the scores.
        """
        sizes = {key: storage.nbytes() for key, born in self._alive.items() if (storage := born()) is not None}
        for root in [key for key in self._references if key in sizes and key not in held]:
            users = [recipe for recipe in self._saved_recipes if depends_on(recipe, root)]
            if not users or users[0].value is None:
                continue
            first = users[0]
            if first.num_bytes <= sizes[root] and all(
                not depends_on(recipe, root, unless=first) for recipe in users[1:]
            ):
                first.keep(users[0].value)
