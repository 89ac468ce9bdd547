"""`docs/metrics.md`: the series that a server has on `/metrics`, from their definitions."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase

from oea_server.controller import metrics as of_controller
from oea_server.lab.reference.page import DOCS, entry
from oea_server.observe import metrics, tier_metrics

PAGE = DOCS / "metrics.md"


def entries() -> list[str]:
    """One for each metric, in the order of their definitions."""
    return [entry(f"`{name(each)}`", facts(each), f"{each._documentation}.") for each in defined()]


def defined() -> Iterator[MetricWrapperBase]:
    """All that a server may have."""
    registry = CollectorRegistry()
    always = metrics.Metrics(registry)
    always.add_ranks()
    always.add_layers()
    of_controller.Metrics(registry)
    tier_metrics.Times(registry)
    tier_metrics.Rows(registry)
    for each in registry._collector_to_names:
        assert isinstance(each, MetricWrapperBase)
        yield each


def name(metric: MetricWrapperBase) -> str:
    """The metric's name as it is scraped; a histogram's without the endings of its parts."""
    return f"{metric._name}_total" if metric._type == "counter" else metric._name


def facts(metric: MetricWrapperBase) -> str:
    """The metric's kind and labels."""
    kind = str(metric._type).capitalize()
    labels = ", ".join(f"`{label}`" for label in metric._labelnames)
    return f"{kind} by {labels}." if labels else f"{kind}."
