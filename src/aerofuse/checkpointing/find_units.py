"""Finds the units of any network: the calls of modules between which nothing but one tensor is handed over.

No list of families and no mark of a library is needed. A *block* is a call in which something leads past each of its
parts: the residual connection is an example. Of a class that the network has several of, it is enough that something
leads past some part. A block stays whole. A module that is made of blocks is taken apart, and so is a long row of
layers. What is left, such as the layers of a stem, forms units of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

from torch import nn

from aerofuse.checkpointing.call_trace import CallTrace, SeenTensor, TracedCall
from aerofuse.checkpointing.tensors import storage_key
from aerofuse.checkpointing.unit_calls import FoundChain, FoundUnit, module_of

# A row of so many layers with weights is taken apart, though it holds no block: VGG's is an example.
_LONG_ROW = 6
# A block with so many equal parts in a row is taken apart, too: DenseNet's is an example.
_DENSE_ROW = 6
IsUnit = Callable[[str, nn.Module], bool]


# The calls of one unit, and the units of one chain.
TracedUnit = tuple[TracedCall, ...]
TracedChain = tuple[TracedUnit, ...]


def find_chains(trace: CallTrace, is_unit: IsUnit | None = None) -> list[TracedChain]:
    """Return the chains of a network: rows of units, each of which takes what the one before it has returned.

    `is_unit` may say of a module, by its name, that it is one unit whatever it holds.
    """
    finder = _Finder(trace, is_unit)
    frontier = finder.frontier(trace.calls[0])
    # A call that takes no tensor, such as one that makes a position table, has nothing to be computed again from.
    calls = [call for call in frontier if call.learns and call.inputs and not call.does_nothing]
    chains: list[list[list[TracedCall]]] = []
    before: TracedCall | None = None
    for call in calls:
        flows = before is not None and flowing(before, call) is not None
        if before is not None and flows and finder.may_join(before, call):
            chains[-1][-1].append(call)
        elif call.overwrites:  # a unit is computed again from its input, so this is none
            before = None
            continue
        elif flows:
            chains[-1].append([call])
        else:
            chains.append([[call]])
        before = call
    return [tuple(tuple(unit) for unit in chain) for chain in chains]


def names_of(chains: Sequence[TracedChain]) -> tuple[FoundChain, ...]:
    """Return the units of chains by the names of their calls."""
    return tuple(tuple(FoundUnit(tuple(call.name for call in unit)) for unit in chain) for chain in chains)


def flowing(before: TracedCall, call: TracedCall) -> SeenTensor | None:
    """Return the input of a call that is an output of the one before, or another view of one."""
    return next((seen for seen in call.inputs if any(seen.is_over(output) for output in before.outputs)), None)


class _Finder:
    def __init__(self, trace: CallTrace, is_unit: IsUnit | None) -> None:
        self._made_at, self._is_unit = trace.made_at, is_unit
        counts = Counter(type(module) for module in {call.module for call in trace.calls})
        self._repeated = {kind for kind, count in counts.items() if count > 1}
        self._blocks = {type(call.module) for call in trace.calls if self._is_block(call)}
        self._matrices = {id(call): _num_matrices(call) for call in trace.calls}

    def frontier(self, call: TracedCall) -> Iterator[TracedCall]:
        """Yield the calls that are to be units, in order."""
        if self._is_named(call) or not self._is_taken_apart(call):
            yield call
        else:
            for child in call.children:
                yield from self.frontier(child)

    def may_join(self, before: TracedCall, call: TracedCall) -> bool:
        """Return whether two calls make one unit: the second has no matrix of weights, and neither is a block.

        One that changes its input in place, such as an activation, also joins a block.
        """
        is_apart = self._is_whole(call) or (self._is_whole(before) and not call.overwrites)
        return not (is_apart or self._matrices[id(call)])

    def _is_whole(self, call: TracedCall) -> bool:
        return ":" in call.name or type(call.module) in self._blocks or self._is_named(call)

    def _is_named(self, call: TracedCall) -> bool:
        return self._is_unit is not None and self._is_unit(module_of(call.name), call.module)

    def _is_taken_apart(self, call: TracedCall) -> bool:
        if any(":" in child.name for child in call.children):
            return True
        inside = [self._matrices[id(block)] for block in self._outermost_blocks(call)]
        if type(call.module) in self._blocks:
            is_made_of_blocks = len(inside) > 1 and 2 * sum(inside) > self._matrices[id(call)]
            return is_made_of_blocks or _longest_row(call) >= _DENSE_ROW
        return bool(inside) or self._matrices[id(call)] >= _LONG_ROW

    def _outermost_blocks(self, call: TracedCall) -> Iterator[TracedCall]:
        for child in call.children:
            if type(child.module) in self._blocks:
                yield child
            else:
                yield from self._outermost_blocks(child)

    def _is_block(self, call: TracedCall) -> bool:
        """Return whether its own code reads something from before its parts behind each of their boundaries.

        Of a class that is repeated, it does so behind some boundary.
        """
        handed = [
            (first, second, seen)
            for first, second in pairwise(call.children)
            if (seen := flowing(first, second)) is not None
        ]
        bypassed = [self._is_bypassed(call, second, seen) for _, second, seen in handed]
        return any(bypassed) and (all(bypassed) or type(call.module) in self._repeated)

    def _is_bypassed(self, call: TracedCall, child: TracedCall, handed: SeenTensor) -> bool:
        """Return whether something from before `child` is read behind its start, other than what it is handed.

        Who reads it is the code of `call`, or a part that begins another branch: a shortcut with a convolution.
        """
        branches = (second for first, second in pairwise(call.children) if flowing(first, second) is None)
        begun = ((branch.started, seen.tensor) for branch in branches for seen in branch.inputs)
        return any(
            when > child.started
            and tensor.grad_fn is not None
            and self._made_at.get(id(tensor), 0) < child.started
            and storage_key(tensor) != storage_key(handed.tensor)
            for when, tensor in (*call.read, *begun)
        )


def _longest_row(call: TracedCall) -> int:
    """Return the number of parts of one class, each made of parts, that follow each other, at most."""
    longest = length = 0
    for before, child in pairwise([None, *call.children]):
        assert child is not None
        continues = before is not None and type(before.module) is type(child.module) and flowing(before, child)
        length = (length + 1 if continues else 1) if child.children else 0
        longest = max(longest, length)
    return longest


def _has_matrix(module: nn.Module) -> bool:
    return any(parameter.ndim > 1 for parameter in module.parameters(recurse=False))


def _num_matrices(call: TracedCall) -> int:
    return _has_matrix(call.module) + sum(_num_matrices(child) for child in call.children)
