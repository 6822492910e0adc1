"""The report as one HTML file that opens without a network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from markupsafe import Markup

from aerofuse.plotting.answers import clarity_chart
from aerofuse.plotting.chart import Chart, chart_style, vega_bundle
from aerofuse.plotting.learning import learning_charts
from aerofuse.plotting.models import interval_charts
from aerofuse.plotting.wording import MODELS
from aerofuse.report.mistakes import mistake_groups, mistake_notes
from aerofuse.report.sections import (
    calibration_section,
    confusion_section,
    cost_section,
    data_section,
    devices_table,
    export_section,
    params_text,
    regression_section,
)
from aerofuse.report.sources import PageSources
from aerofuse.report.tables import (
    GATE_HEADER,
    REMARK_ON_MCNEMAR,
    differences_table,
    gate_cells,
    introduction,
    models_table,
    remarks_on_times,
    summary_of_gates,
)
from aerofuse.report.templating import colour_variables, open_templates
from aerofuse.report.verdict import gain_sentence, headline, leads

TEMPLATES = Path(__file__).with_name("templates")
MAX_BYTES = 10_000_000


def write_page(sources: PageSources, path: Path) -> list[Chart]:
    """Write the report, and return the charts in it; the same sources give the same bytes.

    Raises `ValueError` where it is too large to open.
    """
    text, charts = render_page(sources)
    size = len(text.encode())
    if size > MAX_BYTES:
        raise ValueError(
            f"the report has {size} bytes, {MAX_BYTES} are allowed; show fewer mistakes (explain.mistakes)"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return charts


def render_page(sources: PageSources) -> tuple[str, list[Chart]]:
    """Return the report as HTML, and the charts that it shows."""
    environment = open_templates(TEMPLATES)
    charts: dict[str, Chart] = {}

    def placed(chart: Chart) -> Chart:
        # Only what the page shows is written into it.
        charts[chart.name] = chart
        return chart

    environment.filters["placed"] = placed
    environment.filters["code"] = _code
    body = environment.get_template("report.html.j2").render(**_content(sources))
    specs = json.dumps(
        {name: chart.spec for name, chart in charts.items()}, ensure_ascii=False, separators=(",", ":"), allow_nan=False
    )
    script = (TEMPLATES / "report.js").read_text(encoding="utf-8")
    style = (TEMPLATES / "report.css").read_text(encoding="utf-8")
    text = environment.get_template("page.html.j2").render(
        title="Aerofuse: results",
        body=Markup(body),
        style=Markup(colour_variables() + style),
        # `<` only occurs inside strings, where it may be written so; a script tag then cannot end in one.
        specs=Markup(specs.replace("<", "\\u003c")),
        chart_style=Markup(json.dumps(chart_style(), separators=(",", ":"))),
        script=Markup(vega_bundle(script)),
    )
    return text, list(charts.values())


def _content(sources: PageSources) -> dict[str, Any]:
    comparison = sources.comparison
    of_hybrid = [gate_cells(gate) for gate in comparison.gates if gate.model == "hybrid"]
    of_baseline = [gate_cells(gate) for gate in comparison.gates if gate.model != "hybrid"]
    return {
        "comparison": comparison,
        "models": MODELS,
        "headline": headline(comparison),
        "gain": gain_sentence(comparison),
        "leads": leads(comparison),
        "gates_passed": sum(status == "pass" for _, _, _, status, _ in of_hybrid),
        "gate_header": GATE_HEADER,
        "gates": of_hybrid,
        "baseline_gates": of_baseline,
        "gates_summary": summary_of_gates([gate for gate in comparison.gates if gate.model == "hybrid"]),
        "introduction": introduction(comparison),
        "models_table": models_table(comparison),
        "interval_charts": interval_charts(comparison),
        "clarity_chart": clarity_chart(sources.predictions),
        "remarks": remarks_on_times(comparison),
        "differences": differences_table(comparison),
        "mcnemar": REMARK_ON_MCNEMAR,
        "learning_charts": learning_charts({MODELS[model]: sources.history_of(model) for model in MODELS}),
        "confusion": confusion_section(sources),
        "calibration": calibration_section(sources),
        "regression": regression_section(sources),
        "mistake_groups": mistake_groups(sources),
        "mistake_notes": mistake_notes(sources),
        "costs": cost_section(sources),
        "export": export_section(sources.export),
        "data": data_section(sources),
        "devices": devices_table(sources),
        "params": params_text(sources.params),
        "commit": sources.commit,
        "changed": sources.changed,
        "fingerprints": {MODELS[model]: digest for model, digest in sources.fingerprints.items()},
    }


def _code(text: str) -> Markup:
    """Return text in which what stands in backticks is code."""
    parts = text.split("`")
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if number % 2 else part for number, part in enumerate(parts)
    )
