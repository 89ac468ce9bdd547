"""PromQL of the panels: every selector is filtered by the dashboard's variables, every counter is
read as a rate."""

from __future__ import annotations

POD = 'namespace=~"$namespace", pod=~"$pod"'
"""oea_* series carry no model: the variable `pod` is narrowed to the pods that serve it."""
MODEL = f'{POD}, model_name=~"$model"'


def oea(name: str, *more: str) -> str:
    """A selector of one of our metrics."""
    return f"{name}{{{', '.join((POD, *more))}}}"


def sglang(name: str, *more: str) -> str:
    """A selector of one of SGLang's gauges, under both names that versions of Prometheus store it
    by."""
    labels = ", ".join((MODEL, *more))
    return f"(sglang:{name}{{{labels}}} or sglang_{name}{{{labels}}})"


def rate(name: str, *more: str) -> str:
    """Per second, of one of our counters."""
    return f"rate({oea(name, *more)}[$window])"


def sglang_rate(name: str, *more: str) -> str:
    """Per second, of one of SGLang's counters."""
    labels = ", ".join((MODEL, *more))
    return f"(rate(sglang:{name}{{{labels}}}[$window]) or rate(sglang_{name}{{{labels}}}[$window]))"


def by_pod(expression: str, aggregate: str = "sum") -> str:
    """One series per pod."""
    return f"{aggregate} by (namespace, pod) ({expression})"


def ratio(above: str, below: str) -> str:
    """Two of our counters, one by the other, per pod."""
    return f"{by_pod(rate(above))} / {by_pod(rate(below))}"


def mean(histogram: str) -> str:
    """The mean of what one of our histograms saw in the window, per pod."""
    return ratio(f"{histogram}_sum", f"{histogram}_count")


def quantile(q: float, buckets: str) -> str:
    """A quantile over all chosen pods together: their buckets add up, their quantiles would not."""
    return f"histogram_quantile({q}, sum by (le) ({buckets}))"
