"""Which rank reports, and into which registry.

Under TP and EP all ranks see the same tokens and choose the same experts, so rank 0 speaks for all.
Under DP attention the first of the ranks that share a batch may: which of them counts a step, the
step decides (`gathered.speaks`)."""

from __future__ import annotations

import logging

import torch

from oea_server.engine import captures, plugin, tier_counts
from oea_server.engine.control import state_of
from oea_server.engine.runtime import Runtime
from oea_server.provenance import commit, version

logger = logging.getLogger(__name__)


def is_reporting_rank() -> bool:
    """Whether this scheduler process is the first of those that share its batches."""
    from sglang.srt.runtime_context import get_parallel

    return bool(get_parallel().attn_tp_rank == 0)


def start(now: Runtime, counts_steps: int = 0) -> None:
    """Report to SGLang's `/metrics` once a second, if the server has metrics at all.

    Steps are the same in all pipeline stages: `counts_steps` is the stage that counts them.

    Imports prometheus_client here, not above. Imported in the launcher before SGLang has set
    PROMETHEUS_MULTIPROC_DIR, it would keep the launcher's own metrics (TTFT among them) to itself.
    """
    from sglang.srt.runtime_context import get_parallel, get_server_args

    reason = now.steering.reason
    state = (
        "OEA: router"
        f" {'active' if now.steering.active else 'inactive'}{': ' if reason else ''}{reason}"
    )
    logger.log(logging.WARNING if reason else logging.INFO, state)
    if not get_server_args().enable_metrics:
        return
    from oea_server.observe import folder
    from oea_server.observe.metrics import Metrics
    from oea_server.observe.reporter import Options, Reporter, Sources

    metrics = Metrics()
    seams = "patched" if plugin.patched else "hooks"
    metrics.build_info.labels(version("oea-server"), commit(), version("sglang"), seams).set(1)
    if now.steering.frozen is not None and not now.routers:
        metrics.set_state(state_of(now), {})  # said once: nothing will change it
        return
    if now.tally is None or now.shadow_tally is None or now.clock is None:
        metrics.set_router_active(now.steering.active, reason)
        return
    if now.device.type == "cuda":
        captures.watch(torch.cuda.CUDAGraph)
    clock = now.clock
    counted = Sources(
        now.tally,
        now.shadow_tally,
        clock.read,
        now.bypassed,
        now.expert_bytes,
        lambda: state_of(now),
        captures.ongoing,
        lambda: clock.requests,
        tier_counts.counts.read,
    )
    parallel = get_parallel()
    options = Options(
        first_stage=parallel.pp_rank == counts_steps,
        per_layer=now.steering.settings.per_layer_metrics,
        folder=folder.current(),
        changes=parallel.tp_rank == 0,
    )
    Reporter(metrics, counted, options).start()
