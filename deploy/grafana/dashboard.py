"""The dashboard: its variables, its annotations, and its rows of panels."""

from __future__ import annotations

import json
from pathlib import Path

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    VariableOption,
    VariableRefresh,
    VariableSort,
)

from deploy.grafana.experts import EXPERTS, QUALITY
from deploy.grafana.layers import LAYERS
from deploy.grafana.panel import DATASOURCE, WIDTH, Panel, build
from deploy.grafana.promql import oea
from deploy.grafana.service import SERVICE
from deploy.grafana.steps import CONFIGURATION, STEPS
from deploy.grafana.tiers import TIERS

FILE = Path(__file__).with_name("oea-server.json")

ROWS: tuple[tuple[str, int, tuple[Panel, ...]], ...] = (
    ("Experts", 3, EXPERTS),
    ("Fidelity to the trained model", 3, QUALITY),
    ("Decode steps", 3, STEPS),
    ("Service", 3, SERVICE),
    ("Configuration", 3, CONFIGURATION),
    ("Tiers (--oea-tiers)", 3, TIERS),
    ("Layers (--oea-per-layer-metrics)", 3, LAYERS),
)
"""Title, panels side by side, panels."""

SERVERS = '{__name__=~"sglang[:_]num_running_reqs", namespace=~"$namespace"'
"""The one series that names a server's model, there from its start."""
QUERIES = {
    "namespace": "label_values(oea_router_active, namespace)",
    "model": f"label_values({SERVERS}}}, model_name)",
    "pod": f'label_values({SERVERS}, model_name=~"$model"}}, pod)',
}
WINDOWS = ("1m", "5m", "15m", "1h", "6h")
CHANGES = f"changes({oea('oea_config_changes_total')}[1m]) > 0"


def make() -> dashboard.Dashboard:
    """All of it."""
    made = dashboard.Dashboard("oea-server").uid("oea-server").tags(["oea", "sglang", "moe"])
    made.description(
        "Batch-aware expert routing in SGLang: what it saves, what it changes, and what users feel."
    )
    made.time("now-1h", "now").refresh("30s").timezone("browser").tooltip(
        DashboardCursorSync.CROSSHAIR
    )
    # No data source is assumed: the first Prometheus there is, or whichever is picked
    made.with_variable(
        dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus")
    )
    for name in QUERIES:
        made.with_variable(chosen(name))
    made.with_variable(window())
    made.annotation(
        dashboard.AnnotationQuery()
        .name("Configuration changes")
        .datasource(DATASOURCE)
        .enable(True)
        .icon_color("purple")
        .expr(CHANGES)
    )
    for title, columns, panels in ROWS:
        made.with_row(dashboard.Row(title))
        for panel in panels:
            made.with_panel(build(panel, WIDTH // columns))
    return made


def chosen(name: str) -> dashboard.QueryVariable:
    """A variable with all values chosen at first. "All" stands for the values found, so that a
    model narrows pods."""
    variable = (
        dashboard.QueryVariable(name)
        .label(name.capitalize())
        .datasource(DATASOURCE)
        .query(QUERIES[name])
    )
    variable.refresh(VariableRefresh.ON_TIME_RANGE_CHANGED).sort(VariableSort.ALPHABETICAL_ASC)
    return (
        variable.multi(True)
        .include_all(True)
        .current(VariableOption(text=["All"], value=["$__all"]))
    )


def window() -> dashboard.IntervalVariable:
    """Over how long rates are taken. 5m holds several scrapes of any common scrape interval."""
    options = [VariableOption(text=each, value=each, selected=each == "5m") for each in WINDOWS]
    return (
        dashboard.IntervalVariable("window")
        .label("Rates over")
        .values(",".join(WINDOWS))
        .options(options)
        .current(VariableOption(text="5m", value="5m"))
    )


def text() -> str:
    """The file that Grafana reads."""
    return json.dumps(make().build(), cls=JSONEncoder, sort_keys=True, indent=1) + "\n"
