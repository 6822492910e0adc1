from __future__ import annotations

from aerofuse.checkpointing.recompute_graph import Call
from aerofuse.planning.save_sets import no_cache_seconds, replay_seconds, replayed, sets_to_save

# An MLP: norm, a product, an activation, a product; autograd wants all but the last, which is the output.
CALLS = [
    Call("layer_norm.0", 100, (), saved=True, is_output=False),
    Call("linear.0", 400, ("layer_norm.0",), saved=True, is_output=False),
    Call("gelu.0", 400, ("linear.0",), saved=True, is_output=False),
    Call("linear.1", 100, ("gelu.0",), saved=True, is_output=False),
    Call("add.0", 100, ("linear.1",), saved=False, is_output=True),
]
SECONDS = {"layer_norm.0": 1.0, "linear.0": 10.0, "gelu.0": 2.0, "linear.1": 10.0, "add.0": 1.0}


def test_only_what_autograd_wants_is_made_again() -> None:
    by_name = {call.name: call for call in CALLS}
    assert replayed(by_name, ()) == {"layer_norm.0", "linear.0", "gelu.0", "linear.1"}
    assert replayed(by_name, ("linear.1",)) == {"layer_norm.0", "linear.0", "gelu.0"}
    assert replay_seconds(by_name, ("linear.0", "linear.1"), SECONDS) == 3.0


def test_a_call_that_leads_to_a_wanted_one_is_made_again() -> None:
    wanted = Call("softmax.0", 10, ("matmul.0",), saved=True, is_output=False)
    scores = Call("matmul.0", 10, (), saved=False, is_output=False)
    by_name = {call.name: call for call in (scores, wanted)}
    assert replayed(by_name, ()) == {"matmul.0", "softmax.0"}
    assert replayed(by_name, ("softmax.0",)) == set()
    assert sets_to_save([scores, wanted], {"matmul.0": 5.0, "softmax.0": 1.0})[1] == ("softmax.0",)


def test_a_unit_without_a_cache_makes_each_result_from_what_is_saved() -> None:
    by_name = {call.name: call for call in CALLS}
    # The norm for itself and the three after it, the first product for itself and the two after it, and so on.
    assert no_cache_seconds(by_name, (), SECONDS) == 4 * 1.0 + 3 * 10.0 + 2 * 2.0 + 10.0
    assert no_cache_seconds(by_name, ("linear.0",), SECONDS) == 1.0 + 2 * 2.0 + 10.0


def test_the_best_bargain_is_saved_first() -> None:
    sets = sets_to_save(CALLS, SECONDS)
    assert sets[:3] == [(), ("linear.1",), ("linear.1", "linear.0")]
    assert all("add.0" not in save for save in sets)
    assert replay_seconds({call.name: call for call in CALLS}, sets[-1], SECONDS) == 0


def test_the_number_of_sets_is_limited() -> None:
    calls = [Call(f"linear.{n}", 10, (), saved=True, is_output=False) for n in range(40)]
    sets = sets_to_save(calls, {call.name: 1.0 for call in calls}, most=5)
    assert len(sets) == 5
    assert [len(save) for save in sets] == [0, 10, 20, 30, 40]
