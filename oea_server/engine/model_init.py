"""Take over the model's routers between its construction and the loading of its weights.

Seam: AFTER `sglang.srt.model_loader.loader._initialize_model`.
"""

from __future__ import annotations

import os
import signal
from typing import Any

import torch

from oea_server.engine import reporting, routers, runtime
from oea_server.engine.refuse import refuse


def after_initialize_model(model: torch.nn.Module, *args: Any, **kwargs: Any) -> None:
    """Adopt the routers, or end the launch. The model itself is left as it is."""
    now = runtime.current
    device = next(model.parameters()).device
    if now is None or now.adopted or device.type == "meta":  # some loaders build a model twice
        return
    physical = routers.num_experts(model)
    problems = now.adopt(routers.inspect(model), physical - redundant_experts(), device)
    if problems:
        refuse_from_scheduler(*problems)
    if reporting.is_reporting_rank():
        if now.routers:
            from sglang.srt.runtime_context import get_parallel

            sizes = routers.expert_bytes(model)
            now.start_counting(physical, get_parallel().moe_ep_size, device, is_placed(), sizes)
        reporting.start(now)


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
