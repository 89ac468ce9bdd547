"""Requests, tokens and the time between them by tier, as clients see it.

Seam: AFTER `sglang.srt.managers.tokenizer_manager.TokenizerManager.collect_metrics`, which SGLang
calls for what each request got of a step, where it observes `sglang:inter_token_latency_seconds`;
the times here are between the same moments."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from oea_server.engine import wish

make: Callable[[], Any] | None = None
"""Makes `oea_server.observe.tier_metrics.Times`; None where this process has no metrics."""
metrics: Any = None
"""The series that the process has made; None before any request was given a tier."""


def begin() -> None:
    """Have metrics from now on, because a request has a tier."""
    global metrics
    if metrics is None and make is not None:
        metrics = make()


def after_collect_metrics(
    result: Any, self: Any, state: Any, recv_obj: Any, i: int, *args: Any, **kwargs: Any
) -> None:
    """Observe what a request that has a tier got."""
    if metrics is None:
        return
    sampling = getattr(state.obj, "sampling_params", None)
    params = sampling.get("custom_params") if isinstance(sampling, Mapping) else None
    tier = wish.carried(params).tier if params else None
    if tier is None:
        return
    counts = getattr(recv_obj, "completion_tokens", None)
    tokens, now = int(counts[i]) if counts else 0, time.perf_counter()
    before = getattr(state, "oea_seen", None)
    if before is None:
        metrics.first(tier, tokens)
    elif tokens > before[0]:
        metrics.later(tier, tokens - before[0], now - before[1])
    if before is None or tokens != before[0]:
        state.oea_seen = tokens, now
    if state.finished:
        metrics.ended(tier)
