"""Which of a model's routers can be handled, read off the modules that SGLang built.

Seam: `sglang.srt.layers.moe.topk.TopK` and its `TopKConfig`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import torch

from oea_server import routing
from oea_server.engine import model_card
from oea_server.engine.router_traits import Traits, unsupported


class Router(NamedTuple):
    """One MoE layer's router. `problem` says why it runs vanilla, None if it can be handled."""

    layer: int
    k: int
    renormalize: bool
    problem: str | None

    @property
    def rule(self) -> routing.Router:
        """What the routing needs of it."""
        return _rule(self.k, self.renormalize)


@lru_cache
def _rule(k: int, renormalize: bool) -> routing.Router:
    return routing.Router(k, renormalize)


def inspect(model: torch.nn.Module) -> list[Router]:
    """All routers of a model, before its weights load. Empty for a model without experts."""
    from sglang.srt.layers.moe.fused_moe_triton.layer import FusedMoE
    from sglang.srt.layers.moe.topk import TopK

    found = []
    for name, module in model.named_modules():
        if isinstance(module, TopK):
            config = module.topk_config
            layer = -1 if module.layer_id is None else int(module.layer_id)
            found.append(Router(layer, config.top_k, config.renormalize, problem_of(config, layer)))
        elif type(module).__name__.endswith("TopK"):
            why = f"{name} is a {type(module).__name__}, which is not supported yet"
            found.append(Router(-1, 0, False, why))
    widths = {
        int(module.layer_id): int(module.num_global_routed_experts)
        for module in model.modules()
        if isinstance(module, FusedMoE)
    }
    if not found and widths:
        return [Router(-1, 0, False, f"the model {unsupported(Traits(elsewhere=True))}")]
    return [_as_wide_as_others(router, widths) for router in found]


def _as_wide_as_others(router: Router, widths: Mapping[int, int]) -> Router:
    """The router, refused if its layer has fewer experts than others: all share one tally and one policy."""
    widest = max(widths.values(), default=0)
    here = widths.get(router.layer, widest)
    if router.problem is not None or here == widest:
        return router
    return router._replace(problem=f"the model's layers differ: {here} experts here, {widest} elsewhere")


def problem_of(config: Any, layer: int) -> str | None:
    """Why a `TopKConfig` cannot be handled, or None."""
    slots = getattr(config, "num_shared_topk_slots", None)
    shared = slots or getattr(config, "num_fused_shared_experts", 0)
    biased = config.correction_bias is not None
    why = unsupported(
        Traits(
            groups=(config.num_expert_group or 1) if config.use_grouped_topk else 0,
            biased=biased,
            scoring="sigmoid" if config.use_grouped_topk and biased else config.scoring_func,
            own_function=config.custom_routing_function is not None,
            shared_columns=bool(shared),
            scaled=bool(config.apply_routed_scaling_factor_on_output),
            output=getattr(config.output_format, "name", "STANDARD"),
            knows_layer=layer >= 0,
        )
    )
    return None if why is None else f"the model {why}"


def num_experts(model: torch.nn.Module) -> int:
    """Experts that a router chooses from, redundant replicas included.

    A shared expert that the model fuses with them is none of them, whether its column is the
    router's or appended after `TopK` (Qwen3-Next): SGLang's `num_experts` counts it,
    `num_global_routed_experts` does not. Models that keep their experts in modules of their own
    (DeepSeek-MoE, DBRX, XVERSE) are read by their config.
    """
    from sglang.srt.layers.moe.fused_moe_triton.layer import FusedMoE

    fused = [module for module in model.modules() if isinstance(module, FusedMoE)]
    if fused:
        return max(int(module.num_global_routed_experts) for module in fused)
    config: Any = getattr(model, "config", None)
    return model_card.of(config.to_dict()).num_experts if hasattr(config, "to_dict") else 0


def expert_bytes(model: torch.nn.Module) -> dict[int, int]:
    """Bytes of one expert's weights, scales included, over all ranks that share it, by layer."""
    from sglang.srt.layers.moe.fused_moe_triton.layer import FusedMoE

    sizes = {}
    for module in model.modules():
        if isinstance(module, FusedMoE):
            local = module.num_local_experts  # a fused shared expert has the shape of the others
            held = [each for each in module.parameters() if each.dim() > 1 and len(each) == local]
            here = sum(each.numel() * each.element_size() for each in held) // local
            sizes[int(module.layer_id)] = here * module.moe_tp_size
    return sizes
