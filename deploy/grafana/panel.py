"""One panel: what it shows, in the words of the dashboard, and how Grafana is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from grafana_foundation_sdk.builders import (
    bargauge,
    common,
    heatmap,
    prometheus,
    stat,
    statetimeline,
    timeseries,
)
from grafana_foundation_sdk.models.common import VisibilityMode, VizOrientation
from grafana_foundation_sdk.models.dashboard import (
    DataSourceRef,
    ValueMap,
    ValueMapping,
    ValueMappingResult,
)
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

DATASOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
HEIGHT = 8
WIDTH = 24
"""Grafana's grid."""

Kind = Literal["lines", "heatmap", "stat", "states", "bars"]
Builder = timeseries.Panel | heatmap.Panel | stat.Panel | statetimeline.Panel | bargauge.Panel


@dataclass(frozen=True)
class Query:
    """One expression, and what its series are called."""

    expr: str
    legend: str = "{{pod}}"


@dataclass(frozen=True)
class Panel:
    """A title, a unit, what to read from it, and its queries."""

    title: str
    unit: str
    description: str
    queries: tuple[Query, ...]
    kind: Kind = "lines"
    minimum: float | None = 0
    maximum: float | None = None
    values: tuple[tuple[str, str, str], ...] = ()
    """(value, text, colour) of numbers that stand for words."""


def build(panel: Panel, span: int) -> Builder:
    """As the SDK wants it, `span` of the 24 columns wide."""
    built = MAKERS[panel.kind]()
    built.title(panel.title).description(panel.description).unit(panel.unit)
    built.datasource(DATASOURCE).span(span).height(HEIGHT)
    if panel.minimum is not None:
        built.min(panel.minimum)
    if panel.maximum is not None:
        built.max(panel.maximum)
    if panel.values:
        words = {
            value: ValueMappingResult(text=text, color=color) for value, text, color in panel.values
        }
        mappings: list[ValueMapping] = [ValueMap(options=words)]
        built.mappings(mappings)
    for i, query in enumerate(panel.queries):
        built.with_target(target(panel, query, "ABCDEFGH"[i]))
    return built


def target(panel: Panel, query: Query, ref_id: str) -> prometheus.Dataquery:
    """A range query; the newest value alone where there is no time axis."""
    made = prometheus.Dataquery().expr(query.expr).legend_format(query.legend).ref_id(ref_id)
    if panel.kind == "heatmap":
        made.format(PromQueryFormat.HEATMAP)
    return made.instant() if panel.kind in ("stat", "bars") else made.range()


def lines() -> timeseries.Panel:
    legend = common.VizLegendOptions().show_legend(True)
    tooltip = common.VizTooltipOptions()
    return timeseries.Panel().legend(legend).tooltip(tooltip).line_width(1).fill_opacity(5)


def heat() -> heatmap.Panel:
    # Prometheus's histograms come bucketed: Grafana must not bucket them again
    return (
        heatmap.Panel()
        .calculate(False)
        .color(heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME))
    )


def number() -> stat.Panel:
    return stat.Panel().reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))


def states() -> statetimeline.Panel:
    return statetimeline.Panel().show_value(VisibilityMode.NEVER).merge_values(True)


def bars() -> bargauge.Panel:
    newest = common.ReduceDataOptions().calcs(["lastNotNull"])
    return bargauge.Panel().orientation(VizOrientation.VERTICAL).reduce_options(newest)


MAKERS: dict[Kind, Callable[[], Builder]] = {
    "lines": lines,
    "heatmap": heat,
    "stat": number,
    "states": states,
    "bars": bars,
}
