"""Which of the implementations of `route` is the fastest for some logits."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import torch

from oea_server.routing.contract import Routing


class Way(NamedTuple):
    """An implementation of `oea_server.routing.route`."""

    name: str
    """host, fused or eager."""
    route: Callable[..., Routing]
    why: str
    """Why not one launch, where a GPU has to do without; else empty."""


@lru_cache(maxsize=1024)
def way(device: torch.device, batch: int, num_experts: int, width: int) -> Way:
    """The way for [batch, num_experts] logits on a device, `width` experts per token."""
    if device.type == "cpu":
        from oea_server.routing import host

        return Way("host", host.route, "")
    from oea_server.routing import eager

    why = f"no Triton on {device.type}"
    if device.type == "cuda":
        from oea_server.routing import fused

        why = fused.problem_of(batch, num_experts, width) or ""
        if not why:
            return Way("fused", fused.route, "")
    return Way("eager", eager.route, why)
