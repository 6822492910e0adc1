"""What the sweep found, as a page with two charts: `python -m tools.any_network.page`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import altair as alt
import pandas as pd

from aerofuse.common.markdown import markdown_table
from aerofuse.plotting.chart import BLUE, GREEN, GREY, ORANGE, VERMILLION, Chart, finish, write_picture
from tools.any_network.findings import TABLE, Finding, Served, read_findings, write_findings

_COLOURS = {
    Served.EXACT: BLUE,
    Served.UNITS_ONLY: GREEN,
    Served.NOT_PLANNED: ORANGE,
    Served.NOT_EXACT: VERMILLION,
    Served.FAILED: "#cc79a7",
    Served.NOT_BUILT: GREY,
}
_PLANNED = (Served.EXACT, Served.UNITS_ONLY)
_MUST_BE_EXACT, _AIM_EXACT = 0.9, 0.98  # of timm's networks
_MUST_BE_FASTER = 0.95  # of those planned at the switch's peak


def any_network_page(findings: Sequence[Finding]) -> str:
    """Return the page: how many networks of each library are served, and which are not, and why."""
    parts = [summary(findings)]
    if missing := _missing_table(findings):
        parts += ["## Not served, and why", missing]
    return "\n\n".join(parts) + "\n"


def summary(findings: Sequence[Finding]) -> str:
    """Return how many networks of each library are served in which way, and whether that is what was promised."""
    libraries = list(dict.fromkeys(one.library for one in findings))
    counts = [[_count(findings, library, way) for way in Served] for library in libraries]
    table = markdown_table(
        ["library", "networks", *Served],
        [[name, str(sum(found)), *map(str, found)] for name, found in zip(libraries, counts, strict=True)],
        "lr" + "r" * len(Served),
    )
    return "\n\n".join([table, *_verdicts(findings), f"From `{TABLE.as_posix()}`."])


def picture(findings: Sequence[Finding]) -> str:
    """Return the chart as a link from the folder of the docs, described for readers who cannot see it."""
    said = " ".join(chart.description for chart in _charts(findings))
    return f"![{said}](../{TABLE.with_suffix('.png').as_posix()})"


def _verdicts(findings: Sequence[Finding]) -> list[str]:
    tried = [one for one in findings if one.library == "timm" and one.served != Served.NOT_BUILT]
    if not tried:
        return []
    planned = [one for one in tried if one.served in _PLANNED]
    changed = sum(bool(one.switch_differs) for one in tried)
    share = len(planned) / len(tried)
    found = [
        f"Of the {len(tried)} networks of timm that were tried, {len(planned)} are planned and exact: {share:.1%} "
        f"(must be {_MUST_BE_EXACT:.0%}, aim {_AIM_EXACT:.0%}). timm's own switch changes the results of {changed}."
    ]
    # Without a plan at the switch's peak, the switch is the better one.
    switched = [one for one in planned if one.switch_bytes and (one.plan_time or not one.plan_bytes)]
    if any(one.plan_time for one in switched):
        faster = sum(_gain(one) >= 0 for one in switched)
        alike = sum(-float(one.time_error or 0) <= _gain(one) < 0 for one in switched)
        found.append(
            f"At the peak of timm's switch, {faster} of {len(switched)} take no more time under a plan than under the "
            f"switch: {faster / len(switched):.1%} (must be {_MUST_BE_FASTER:.0%}). Of {alike} more, the difference is "
            f"within its standard error.{_still_to_time(planned)}"
        )
    return found


def _still_to_time(findings: Sequence[Finding]) -> str:
    count = sum(bool(one.plan_bytes and not one.plan_time) for one in findings)
    return f" Not timed, or too slow for it: {count} more with a switch." if count else ""


def _gain(finding: Finding) -> float:
    """Return how much less of a step's time the plan takes than the switch; without a plan it takes for ever."""
    return float(finding.switch_time) - float(finding.plan_time) if finding.plan_time else -math.inf


def _count(findings: Sequence[Finding], library: str, way: Served) -> int:
    return sum((one.library, one.served) == (library, way) for one in findings)


def _missing_table(findings: Sequence[Finding]) -> str:
    missing = [one for one in findings if one.served != Served.EXACT]
    if not missing:
        return ""
    cells = [[one.library, f"`{one.name}`", one.served, one.differs or one.reason] for one in missing]
    return markdown_table(["library", "network", "served", "why"], cells, "llll")


def draw_any_network(findings: Sequence[Finding], path: Path) -> None:
    """Write the charts as PNG: how the networks of each library are served; times of plans beside the switch."""
    write_picture(path, [[chart] for chart in _charts(findings)])


def _charts(findings: Sequence[Finding]) -> list[Chart]:
    timed = [one for one in findings if one.plan_time]
    return [_served_chart(findings), *([_times_chart(timed)] if timed else [])]


def _times_chart(findings: Sequence[Finding]) -> Chart:
    times = pd.DataFrame(
        [{"network": one.name, "switch": float(one.switch_time), "plan": float(one.plan_time)} for one in findings]
    )
    found = times[["switch", "plan"]].to_numpy()
    ends = [min(1.0, found.min()), found.max() + 0.02]
    scale = alt.Scale(domain=ends, nice=False)
    equal = alt.Chart(pd.DataFrame({"switch": ends, "plan": ends})).mark_line(color=GREY, strokeDash=[4, 3])
    points = alt.Chart(times).mark_point(color=BLUE, filled=True, size=36, opacity=0.7)
    layers = [
        one.encode(
            x=alt.X("switch:Q", title="time of a step under the switch / without", scale=scale),
            y=alt.Y("plan:Q", title="under a plan of its peak / without", scale=scale),
        )
        for one in (equal, points)
    ]
    title = "Time at the peak of the library's own switch: a plan is faster below the line"
    faster = sum(_gain(one) >= 0 for one in findings)
    said = f"{title}. A point is a network, {faster} of {len(findings)} are below."
    return finish("any-network-times", title, said, alt.layer(*layers), height=360)


def _served_chart(findings: Sequence[Finding]) -> Chart:
    libraries = list(dict.fromkeys(one.library for one in findings))
    counts = pd.DataFrame(
        [
            {
                "library": f"{library}, {sum(one.library == library for one in findings)} networks",
                "served": way,
                "place": place,
                "count": count,
            }
            for library in libraries
            for place, way in enumerate(Served)
            if (count := _count(findings, library, way))
        ]
    )
    colour = alt.Color(
        "served:N",
        scale=alt.Scale(domain=list(_COLOURS), range=list(_COLOURS.values())),
        legend=alt.Legend(orient="bottom", title=None, columns=3, labelLimit=260),
    )
    bars = (
        alt.Chart(counts)
        .mark_bar()
        .encode(
            x=alt.X("count:Q", stack="normalize", title=None, axis=alt.Axis(format="%")),
            y=alt.Y("library:N", sort=None, title=None, axis=alt.Axis(labelLimit=260)),
            color=colour,
            order="place:Q",
        )
    )
    said = "; ".join(f"{one.library}: {one.count} {one.served}" for one in counts.itertuples(index=False))
    title = "Gradient checkpointing of any network: how it is served"
    return finish("any-network", title, f"{title}: {said}.", bars, height=44 * len(libraries))


def main() -> None:
    """Sort the table, and write the page and the charts beside it."""
    write_findings(TABLE, read_findings(TABLE))
    findings = read_findings(TABLE)
    TABLE.with_suffix(".md").write_text(any_network_page(findings), encoding="utf-8")
    draw_any_network(findings, TABLE.with_suffix(".png"))


if __name__ == "__main__":
    main()
