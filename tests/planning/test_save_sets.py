from __future__ import annotations

from aerofuse.checkpointing.recompute_graph import Call
from aerofuse.planning.save_sets import Replays, sets_to_save

# An MLP: norm, a product, an activation, a product; autograd wants all but the last, which is the output.
CALLS = [
    Call("layer_norm.0", 100, (), saved=True, is_output=False),
    Call("linear.0", 400, ("layer_norm.0",), saved=True, is_output=False),
    Call("gelu.0", 400, ("linear.0",), saved=True, is_output=False),
    Call("linear.1", 100, ("gelu.0",), saved=True, is_output=False),
    Call("add.0", 100, ("linear.1",), saved=False, is_output=True),
]
SECONDS = {"layer_norm.0": 1.0, "linear.0": 10.0, "gelu.0": 2.0, "linear.1": 10.0, "add.0": 1.0}
REPLAYS = Replays(CALLS, SECONDS)


def test_only_what_autograd_wants_is_made_again() -> None:
    assert REPLAYS.replayed(()) == {"layer_norm.0", "linear.0", "gelu.0", "linear.1"}
    assert REPLAYS.replayed(("linear.1",)) == {"layer_norm.0", "linear.0", "gelu.0"}
    assert REPLAYS.replay_seconds(("linear.0", "linear.1")) == 3.0


def test_a_call_that_leads_to_a_wanted_one_is_made_again() -> None:
    wanted = Call("softmax.0", 10, ("matmul.0",), saved=True, is_output=False)
    scores = Call("matmul.0", 10, (), saved=False, is_output=False)
    replays = Replays([scores, wanted], {"matmul.0": 5.0, "softmax.0": 1.0})
    assert replays.replayed(()) == {"matmul.0", "softmax.0"}
    assert replays.replayed(("softmax.0",)) == set()
    assert sets_to_save(replays)[1] == ("softmax.0",)


def test_a_unit_without_a_cache_makes_each_result_from_what_is_saved() -> None:
    # The norm for itself and the three after it, the first product for itself and the two after it, and so on.
    assert REPLAYS.no_cache_seconds(()) == 4 * 1.0 + 3 * 10.0 + 2 * 2.0 + 10.0
    assert REPLAYS.no_cache_seconds(("linear.0",)) == 1.0 + 2 * 2.0 + 10.0


def test_the_best_bargain_is_saved_first() -> None:
    sets = sets_to_save(REPLAYS)
    assert sets[:3] == [(), ("linear.1",), ("linear.1", "linear.0")]
    assert all("add.0" not in save for save in sets)
    assert REPLAYS.replay_seconds(sets[-1]) == 0


def test_the_number_of_sets_is_limited() -> None:
    calls = [Call(f"linear.{n}", 10, (), saved=True, is_output=False) for n in range(40)]
    sets = sets_to_save(Replays(calls, {call.name: 1.0 for call in calls}), most=5)
    assert len(sets) == 5
    assert [len(save) for save in sets] == [0, 10, 20, 30, 40]
