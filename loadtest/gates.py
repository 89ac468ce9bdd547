"""Thresholds that fail a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from loadtest.figures import STATISTICS, Figures

GATED = ("ttft", "tpot", "itl", "e2e", "late")


def names() -> Iterator[tuple[str, str, str]]:
    """(option's name as an attribute, time, statistic): ("ttft_p95", "ttft", "p95")."""
    for time in GATED:
        for statistic in STATISTICS:
            yield f"{time}_{statistic}", time, statistic


def misses(figures: Figures, options: Mapping[str, Any]) -> list[str]:
    """One line per threshold that was missed; empty if the run passed.

    Args:
        options: thresholds by name in seconds, None where none was asked for; `max_failures` is a
            ratio.
    """
    ratio = figures.failure_ratio
    if ratio is None:
        return ["no request was answered"]
    missed = []
    if ratio > options["max_failures"]:
        missed.append(
            f"failed: {ratio:.2%} of the requests, at most {options['max_failures']:.2%} are"
            " allowed"
        )
    for option, time, statistic in names():
        limit = options.get(option)
        if limit is None:
            continue
        value = figures.value(time, statistic)
        if value is None:
            missed.append(f"{time} {statistic}: no values, {limit:g} s is the limit")
        elif value > limit:
            missed.append(f"{time} {statistic}: {value:.4g} s, {limit:g} s is the limit")
    least = options.get("min_tokens_per_s")
    if least is not None:
        speed = figures.summary()["output_tokens_per_s"] or 0.0
        if speed < least:
            missed.append(f"tokens per second: {speed:.1f}, {least:g} is the least")
    return missed
