"""One panel: what it shows, in the words of the dashboard, and how Grafana is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from grafana_foundation_sdk.builders import (
    bargauge,
    common,
    dashboard,
    heatmap,
    prometheus,
    stat,
    statetimeline,
    timeseries,
)
from grafana_foundation_sdk.models.common import (
    BigValueGraphMode,
    SortOrder,
    TooltipDisplayMode,
    VisibilityMode,
    VizOrientation,
)
from grafana_foundation_sdk.models.dashboard import (
    DataSourceRef,
    DynamicConfigValue,
    FieldColorModeId,
    Threshold,
    ThresholdsMode,
    ValueMap,
    ValueMapping,
    ValueMappingResult,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

DATASOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
HEIGHT = 8
WIDTH = 24
"""Grafana's grid."""

SIDES = (
    (r"(read|oea)$", "blue", False),
    (r"(own top k|under vanilla|vanilla)$", "orange", True),
    (r"(with OEA|shadow)$", "purple", False),
)
"""How names of series end, their colour on the live page too, and whether they are dashed."""
SHARP = 0.001
"""Where a count that must be 0 is no longer: increase() makes fractions."""

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
    soft: tuple[float | None, float | None] = (None, None)
    """What the axis shows at least, where `minimum` or `maximum` does not hold it."""
    sided: bool = False
    """Whether its series are coloured as `SIDES` says."""
    must_be_0: bool = False
    values: tuple[tuple[str, str, str], ...] = ()
    """(value, text, colour) of numbers that stand for words; no colour: that of the series."""


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
            value: ValueMappingResult(text=text, color=color or None)
            for value, text, color in panel.values
        }
        mappings: list[ValueMapping] = [ValueMap(options=words)]
        built.mappings(mappings)
    if panel.sided:
        for ending, colour, dashed in SIDES:
            built.override_by_regexp(f"/{ending}/", side(panel.kind, colour, dashed))
    if isinstance(built, timeseries.Panel):
        low, high = panel.soft
        if low is not None:
            built.axis_soft_min(low)
        if high is not None:
            built.axis_soft_max(high)
    if isinstance(built, bargauge.Panel):
        steps = [Threshold(value=None, color="green" if panel.must_be_0 else "blue")]
        if panel.must_be_0:
            steps.append(Threshold(value=SHARP, color="red"))
        built.thresholds(dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps))
    for i, query in enumerate(panel.queries):
        built.with_target(target(panel, query, "ABCDEFGH"[i]))
    return built


def side(kind: Kind, colour: str, dashed: bool) -> list[DynamicConfigValue]:
    """A shade of `colour` for each pod."""
    mode = FieldColorModeId.SHADES if kind == "lines" else FieldColorModeId.FIXED
    of_side = [DynamicConfigValue("color", {"mode": mode, "fixedColor": colour})]
    if dashed and kind == "lines":
        dash = {"fill": "dash", "dash": [8, 6]}
        of_side.append(DynamicConfigValue("custom.lineStyle", dash))
    return of_side


def target(panel: Panel, query: Query, ref_id: str) -> prometheus.Dataquery:
    """A range query; the newest value alone where there is no time axis."""
    made = prometheus.Dataquery().expr(query.expr).legend_format(query.legend).ref_id(ref_id)
    if panel.kind == "heatmap":
        made.format(PromQueryFormat.HEATMAP)
    return made.instant() if panel.kind in ("stat", "bars") else made.range()


def lines() -> timeseries.Panel:
    legend = common.VizLegendOptions().show_legend(True)
    tooltip = common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING)
    return timeseries.Panel().legend(legend).tooltip(tooltip).line_width(1).fill_opacity(5)


def heat() -> heatmap.Panel:
    # Prometheus's histograms come bucketed: Grafana must not bucket them again. Colours are left to
    # the SDK: options that are given in part it fills up with 0, and 0 steps of colour draw nothing
    return heatmap.Panel().calculate(False).show_tooltip()


def number() -> stat.Panel:
    newest = common.ReduceDataOptions().calcs(["lastNotNull"])
    return stat.Panel().reduce_options(newest).graph_mode(BigValueGraphMode.NONE)


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
