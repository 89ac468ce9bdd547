"""The routing itself, in place of a router's top-k.

Seam: AROUND `sglang.srt.layers.moe.topk.select_experts`. The choice goes in as the config's
`custom_routing_function`, so that everything after it stays SGLang's: routing replay, the map from
logical to physical experts, the masking of pad rows.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from oea_server.engine import runtime
from oea_server.routing import route
from oea_server.routing.policy import Policy


def around_select_experts(
    original: Callable[..., Any],
    hidden_states: torch.Tensor,
    router_logits: torch.Tensor,
    topk_config: Any,
    *,
    layer_id: int | None = None,
    **kwargs: Any,
) -> Any:
    """Route a decode step by the policy; let everything else through untouched."""
    now = runtime.current
    router = None if now is None or now.step is None or layer_id is None else now.routers.get(layer_id)
    if now is None or now.step is None or router is None or torch.compiler.is_compiling():
        return original(hidden_states, router_logits, topk_config, layer_id=layer_id, **kwargs)
    num_real = now.num_real(len(router_logits))
    if not now.is_vanilla(router):
        topk_config = copy.copy(topk_config)
        topk_config.custom_routing_function = partial(choose, now.policy, num_real, router.layer)
    chosen = original(hidden_states, router_logits, topk_config, layer_id=layer_id, **kwargs)
    if now.tally is not None and (now.step.counted or now.step.capturing):
        now.tally.add(router.layer, chosen.topk_ids, num_real)
    return chosen


def choose(
    policy: Policy,
    num_real: int | torch.Tensor | None,
    layer: int,
    hidden_states: torch.Tensor,
    gating_output: torch.Tensor,
    topk: int,
    renormalize: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """`route` with the signature of a `TopKConfig.custom_routing_function`."""
    routing = route(gating_output, policy, k=topk, renormalize=renormalize, num_real=num_real, layer=layer)
    return routing.weights, routing.ids
