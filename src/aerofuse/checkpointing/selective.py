"""Selective checkpointing: chosen results of a unit are saved, the others computed again when autograd asks for them.

While a unit runs, a torch function mode sees every call. The result of one that is not to be saved is remembered as a
recompute node: the function, and where its arguments come from. When autograd saves such a result, the node is saved in
its place, and nothing of the unit is run again but the calls that lead from what is saved to the tensor asked for. So
no random state is replayed, no statistics are updated twice, and none of the 50 to 150 microseconds per operation of a
dispatch mode are spent, which `torch.utils.checkpoint.create_selective_checkpoint_contexts` needs.

What a mode cannot see into (custom autograd functions, scripted code) is simply saved.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from torch import Tensor

from aerofuse.checkpointing.recompute_graph import Call
from aerofuse.checkpointing.recorder import CallRecorder, Watch


def run_selective(
    run: Callable[[Tensor], Tensor],
    inputs: Tensor,
    save: Collection[str] | None = None,
    no_cache: bool = False,
    watch: Watch | None = None,
    *,
    linked: Sequence[Callable[[Tensor], Tensor]] = (),
) -> Tensor:
    """Return `run(inputs)`; save what is expensive to compute, or where given the results of the calls in `save`.

    What is computed on the way to a tensor that autograd asks for is cached until the others that need it have been
    asked for; with `no_cache` it is freed and computed once more: the least memory at the most time.

    The units in `linked` follow, treated alike; their inputs are computed again from `inputs` and from what the units
    between save. `watch` may replace the function that makes a call's result again, to see it, in the first unit.
    """
    recorder = CallRecorder(inputs, save, no_cache, watch)
    output: Tensor | None = None
    try:
        with recorder.part():
            output = run(inputs)
            for following in linked:
                recorder.link(output)
                output = following(output)
    finally:
        # Also when a second run is stopped half way: what it saved so far is used.
        recorder.settle(output)
    return output


def list_calls(run: Callable[[Tensor], Tensor], inputs: Tensor) -> list[Call]:
    """Return the calls that `run(inputs)` makes and that could be made again, in order."""
    recorder = CallRecorder(inputs, save=())
    with recorder.part():
        output = run(inputs)
    calls = recorder.graph.calls(output)
    recorder.settle(output)
    return calls
