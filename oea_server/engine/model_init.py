"""Take over the model's routers between its construction and the loading of its weights.

Seam: AFTER `sglang.srt.model_loader.loader._initialize_model`.
"""

from __future__ import annotations

import os
import signal
from typing import Any, NamedTuple

import torch

from oea_server.engine import placed, plugin, reporting, routers, runtime
from oea_server.engine.refuse import refuse


class Stage(NamedTuple):
    """What a pipeline stage holds."""

    num_experts: int
    """Of its widest layer; 0 without MoE layers."""
    k: int
    """The least top k of the routers that can be handled; 0 without any."""


def after_initialize_model(model: torch.nn.Module, *args: Any, **kwargs: Any) -> None:
    """Adopt the routers, or end the launch. The model itself is left as it is."""
    now = runtime.current
    device = next(model.parameters()).device
    if now is None or now.adopted or device.type == "meta":  # some loaders build a model twice
        return
    found = routers.inspect(model)
    stages = in_stages(Stage(routers.num_experts(model), least_k(found)))
    physical = max(stage.num_experts for stage in stages)
    k = min((stage.k for stage in stages if stage.k), default=0)
    problems = now.adopt(found, physical - redundant_experts(), device, k_elsewhere=k)
    if problems:
        refuse_from_scheduler(*problems)
    from sglang.srt.runtime_context import get_parallel

    ranks = get_parallel().moe_ep_size
    if now.routers and ranks > 1:
        # two of each: what is only counted chooses copies of its own
        now.where, now.shadow_where = (where(now.num_experts, ranks, device) for _ in range(2))
    if reporting.is_reporting_rank():
        if now.routers:
            now.start_counting(physical, ranks, device, is_placed(), routers.expert_bytes(model))
        counts_steps = next((i for i, stage in enumerate(stages) if stage.k), 0)
        reporting.start(now, counts_steps)


def least_k(found: list[routers.Router]) -> int:
    """The least top k of the routers that can be handled; 0 if there are none."""
    return min((router.k for router in found if router.problem is None), default=0)


def in_stages(here: Stage) -> list[Stage]:
    """What every pipeline stage holds, in their order: all must take a change, or none."""
    if not torch.distributed.is_initialized():
        return [here]
    from sglang.srt.runtime_context import get_parallel

    parallel = get_parallel()
    if parallel.pp_size == 1:
        return [here]
    stages: list[Any] = [None] * parallel.pp_size
    torch.distributed.all_gather_object(stages, here, group=parallel.pp_group.cpu_group)
    return stages


def where(num_experts: int, ranks: int, device: torch.device) -> placed.Where:
    """Where experts lie, if pools may know: only hooks can tell SGLang which of several copies to read."""
    if not is_placed():
        return placed.in_order(num_experts, ranks, device)
    return placed.nowhere if plugin.patched and redundant_experts() else placed.by_map(num_experts, ranks, device)


def redundant_experts() -> int:
    """Replicas that EPLB keeps beside the model's own experts."""
    from sglang.srt.runtime_context import get_exec

    return int(get_exec().moe.ep_num_redundant_experts)


def is_placed() -> bool:
    """Whether experts may lie elsewhere than in their own order (EPLB)."""
    from sglang.srt.runtime_context import get_exec

    moe = get_exec().moe
    return bool(moe.enable_eplb or redundant_experts() or moe.init_expert_location != "trivial")


def refuse_from_scheduler(*problems: str) -> None:
    """End the whole server from a scheduler process, the way SGLang's own scheduler does."""
    try:
        refuse(*problems)
    finally:
        os.kill(os.getppid(), signal.SIGQUIT)
