"""Which rank reports, and into which registry.

Under TP and EP all ranks see the same tokens and choose the same experts, so rank 0 speaks for all.
"""

from __future__ import annotations

import logging

from oea_server.engine.runtime import Runtime
from oea_server.observe.metrics import Metrics
from oea_server.observe.reporter import Reporter

logger = logging.getLogger(__name__)


def is_reporting_rank() -> bool:
    """Whether this scheduler process is the one of its TP group that reports."""
    from sglang.srt.runtime_context import get_parallel

    return bool(get_parallel().tp_rank == 0)


def start(now: Runtime) -> None:
    """Report to SGLang's `/metrics` once a second, if the server has metrics at all."""
    from sglang.srt.runtime_context import get_parallel, get_server_args

    state = f"OEA: router {'active' if now.active else 'inactive'}{': ' if now.reason else ''}{now.reason}"
    logger.log(logging.WARNING if now.reason else logging.INFO, state)
    if not get_server_args().enable_metrics:
        return
    metrics = Metrics()
    metrics.set_router_active(now.active, now.reason)
    if now.tally is not None and now.clock is not None:
        first = get_parallel().pp_rank == 0
        Reporter(metrics, now.tally, now.clock.read, lambda: (now.active, now.reason), first).start()
