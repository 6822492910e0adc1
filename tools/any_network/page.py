"""What the sweep found, as a page with a chart: `python -m tools.any_network.page`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import altair as alt
import pandas as pd

from aerofuse.common.markdown import markdown_table
from aerofuse.plotting.chart import BLUE, GREEN, GREY, ORANGE, VERMILLION, Chart, finish, write_picture
from tools.any_network.rows import TABLE, Row, Served, read_rows, write_rows

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


def any_network_page(rows: Sequence[Row]) -> str:
    """Return the page: how many networks of each library are served, and which are not, and why."""
    parts = [summary(rows)]
    if missing := _missing_table(rows):
        parts += ["## Not served, and why", missing]
    return "\n\n".join(parts) + "\n"


def summary(rows: Sequence[Row]) -> str:
    """Return how many networks of each library are served in which way, and whether that is what was promised."""
    libraries = list(dict.fromkeys(row.library for row in rows))
    counts = [[sum(row.library == one and row.served == way for row in rows) for way in Served] for one in libraries]
    table = markdown_table(
        ["library", "networks", *Served],
        [[one, str(sum(found)), *map(str, found)] for one, found in zip(libraries, counts, strict=True)],
        "lr" + "r" * len(Served),
    )
    return "\n\n".join([table, *_verdicts(rows), f"From `{TABLE.as_posix()}`."])


def picture(rows: Sequence[Row]) -> str:
    """Return the chart as a link from the folder of the docs, described for readers who cannot see it."""
    return f"![{_chart(rows).description}](../{TABLE.with_suffix('.png').as_posix()})"


def _verdicts(rows: Sequence[Row]) -> list[str]:
    tried = [row for row in rows if row.library == "timm" and row.served != Served.NOT_BUILT]
    if not tried:
        return []
    planned = [row for row in tried if row.served in _PLANNED]
    changed = sum(bool(row.switch_differs) for row in tried)
    share = len(planned) / len(tried)
    found = [
        f"Of the {len(tried)} networks of timm that were tried, {len(planned)} are planned and exact: {share:.1%} "
        f"(must be {_MUST_BE_EXACT:.0%}, aim {_AIM_EXACT:.0%}). timm's own switch changes the results of {changed}."
    ]
    # Without a plan at the switch's peak, the switch is the better one.
    switched = [row for row in planned if row.switch_bytes and (row.plan_time or not row.plan_bytes)]
    if any(row.plan_time for row in switched):
        faster = sum(bool(row.plan_time) and float(row.plan_time) <= float(row.switch_time) for row in switched)
        found.append(
            f"At the peak of timm's switch, {faster} of {len(switched)} take no more time under a plan than under the "
            f"switch: {faster / len(switched):.1%} (must be {_MUST_BE_FASTER:.0%})."
        )
    return found


def _missing_table(rows: Sequence[Row]) -> str:
    missing = [row for row in rows if row.served != Served.EXACT]
    if not missing:
        return ""
    cells = [[row.library, f"`{row.name}`", row.served, row.differs or row.reason] for row in missing]
    return markdown_table(["library", "network", "served", "why"], cells, "llll")


def draw_any_network(rows: Sequence[Row], path: Path) -> None:
    """Write the chart as PNG: the share of each library's networks that is served in which way."""
    write_picture(path, [[_chart(rows)]])


def _chart(rows: Sequence[Row]) -> Chart:
    libraries = list(dict.fromkeys(row.library for row in rows))
    counts = pd.DataFrame(
        [
            {
                "library": f"{library}, {sum(row.library == library for row in rows)} networks",
                "served": way,
                "place": place,
                "count": count,
            }
            for library in libraries
            for place, way in enumerate(Served)
            if (count := sum(row.library == library and row.served == way for row in rows))
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
    said = "; ".join(f"{row.library}: {row.count} {row.served}" for row in counts.itertuples(index=False))
    title = "Gradient checkpointing of any network: how it is served"
    return finish("any-network", title, f"{title}: {said}.", bars, height=44 * len(libraries))


def main() -> None:
    """Sort the table, and write the page and the chart beside it."""
    write_rows(TABLE, read_rows(TABLE))
    rows = read_rows(TABLE)
    TABLE.with_suffix(".md").write_text(any_network_page(rows), encoding="utf-8")
    draw_any_network(rows, TABLE.with_suffix(".png"))


if __name__ == "__main__":
    main()
