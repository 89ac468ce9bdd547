"""The routing itself, in place of a router's top-k.

Seam: AROUND `sglang.srt.layers.moe.topk.select_experts`. The choice goes in as the config's
`custom_routing_function`, so that everything after it stays SGLang's: routing replay, the map from
logical to physical experts, the masking of pad rows. In a patched SGLang `engine.patched` is asked
for it instead.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from oea_server.engine import guard, rules, runtime
from oea_server.engine.placed import dispatched
from oea_server.engine.routers import Router
from oea_server.engine.runtime import Runtime


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
    router = router_of(now, layer_id)
    if now is None or router is None or kwargs.get("dynamic_expert_bias") is not None:
        return original(hidden_states, router_logits, topk_config, layer_id=layer_id, **kwargs)
    with now.rows.routing(now.step, len(router_logits), kwargs.get("num_token_non_padded")):
        choice = function_of(now, router, topk_config)
        if choice is not None:
            topk_config = rules.in_place(topk_config, choice)
            if (info := kwargs.get("expert_location_dispatch_info")) is not None:
                kwargs["expert_location_dispatch_info"] = dispatched(info, now.where(router.layer))
        chosen = original(hidden_states, router_logits, topk_config, layer_id=layer_id, **kwargs)
        count(now, router, router_logits, chosen.topk_ids, vanilla=choice is None)
    return chosen


def router_of(now: Runtime | None, layer: int | None) -> Router | None:
    """The layer's router if this is a decode step and it can be handled, else None."""
    if now is None or now.step is None or layer is None or torch.compiler.is_compiling():
        return None
    return now.routers.get(layer)


def function_of(
    now: Runtime, router: Router, topk_config: Any
) -> Callable[..., tuple[torch.Tensor, torch.Tensor]] | None:
    """The layer's `custom_routing_function` in this step, None for SGLang's own top k, or another
    plug-in's."""
    theirs = None if router.source is None else router.source.function
    if now.is_vanilla(router) or topk_config.custom_routing_function is not theirs:
        return None
    return partial(choose, now, router)


def count(
    now: Runtime,
    router: Router,
    router_logits: torch.Tensor,
    topk_ids: torch.Tensor,
    *,
    vanilla: bool,
) -> None:
    """Count what was chosen where `choose` did not, and what shadow would choose."""
    guard.check(now, len(router_logits))
    topk_ids = topk_ids[:, : router.k]  # behind them are shared experts, which all tokens take
    now.route_shadow(router, router_logits)
    tally = now.tally_of_step
    if tally is not None and vanilla:
        tally.add_vanilla(router.layer, topk_ids, now.num_real(len(router_logits)))
    elif tally is not None and tally.placed:
        tally.add_loaded_ids(router.layer, topk_ids, now.num_real(len(router_logits)))


def choose(
    now: Runtime,
    router: Router,
    hidden_states: torch.Tensor,
    gating_output: torch.Tensor,
    topk: int,
    renormalize: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The step's routing with the signature of a `TopKConfig.custom_routing_function`."""
    guard.check(now, len(gating_output))
    routing = now.route(router, gating_output)
    chosen = routing.weights, routing.ids
    if topk == router.k or router.source is None:
        return chosen
    return rules.with_shared(
        chosen, topk, gating_output.shape[1], rules.shared_weight(router.source.config)
    )
