from __future__ import annotations

from aerofuse.backbones.families import FAMILIES
from tests.tools.benchmarks.samples import WAYS, results, row
from tools.benchmarks.headlines import headlines
from tools.benchmarks.rows import (
    AT_SWITCH,
    BASELINE,
    PLANNED,
    PROMISED,
    SWITCH,
    as_table,
    by_variant,
    is_known,
    largest_peak_error,
    share_of_the_switchs_time,
)


def test_every_family_has_its_promise() -> None:
    assert list(PROMISED) == list(FAMILIES)
    assert all(0 < low < high < 1 for low, high in PROMISED.values())


def test_what_was_not_measured_has_its_columns_too() -> None:
    measured = row("vit", AT_SWITCH).flat()
    counted = row("vit", BASELINE, "bf16").flat()
    assert list(measured) == list(counted)
    assert counted["time_ratio"] is counted["predicted_peak_bytes"] is counted["buffers_that_differ"] is None
    assert measured["peak_ratio"] == 0.3
    table = as_table([row("vit", AT_SWITCH), row("vit", BASELINE, "bf16")])
    # Whole numbers, not 106.0, beside a gap.
    assert str(table["buffers"].iloc[0]) == "106"
    assert not is_known(table["buffers"].iloc[1])


def test_networks_are_read_by_way_in_the_precision_that_was_timed() -> None:
    networks = by_variant(results().table)
    assert list(networks) == list(by_variant(results().table, "bf16"))
    assert list(networks["resnet50"]) == list(WAYS)
    assert networks["resnet50"][SWITCH]["precision"] == "float32"
    assert by_variant(as_table([])) == {}
    assert by_variant(as_table([row("vit", BASELINE, "bf16")])) == {}


def test_what_is_taken_from_the_rows_of_a_network() -> None:
    ways = by_variant(results().table)["resnet50"]
    assert largest_peak_error(ways) == 0.001
    assert largest_peak_error({SWITCH: ways[SWITCH]}) is None
    share = share_of_the_switchs_time(ways)
    assert share is not None
    assert round(share, 6) == 0.4
    # What is no slower than without checkpointing is noise.
    assert share_of_the_switchs_time({AT_SWITCH: ways[AT_SWITCH], SWITCH: ways[BASELINE]}) is None


def test_headlines_are_numbers_by_short_names() -> None:
    found = headlines(as_table([row("swin", way, kind) for kind in ("float32", "bf16") for way in WAYS]))
    assert found["switch_memory"] == found["planned_at_switch_memory"]
    assert found["planned_least_time"] < found["switch_time"]
    assert found["peak_error_float32"] == found["peak_error_bf16"] == 0.001
    assert found["time_error"] > 0
    assert set(headlines(as_table([row("swin", way, "bf16") for way in PLANNED]))) == {"peak_error_bf16"}
