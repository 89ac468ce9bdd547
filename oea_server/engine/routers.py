"""Which of a model's routers can be handled, read off the modules that SGLang built.

Seam: `sglang.srt.layers.moe.topk.TopK` and its `TopKConfig`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch


class Router(NamedTuple):
    """One MoE layer's router. `problem` says why it runs vanilla, None if it can be handled."""

    layer: int
    k: int
    renormalize: bool
    problem: str | None


def inspect(model: torch.nn.Module) -> list[Router]:
    """All routers of a model, before its weights load. Empty for a model without experts."""
    from sglang.srt.layers.moe.topk import TopK

    found = []
    for name, module in model.named_modules():
        if isinstance(module, TopK):
            config = module.topk_config
            layer = -1 if module.layer_id is None else int(module.layer_id)
            found.append(Router(layer, config.top_k, config.renormalize, problem_of(config, layer)))
        elif type(module).__name__.endswith("TopK"):
            found.append(Router(-1, 0, False, f"{name} is a {type(module).__name__}, which is not supported yet"))
    return found


def problem_of(config: Any, layer: int) -> str | None:
    """Why a `TopKConfig` cannot be handled, or None."""
    shared = getattr(config, "num_shared_topk_slots", None) or getattr(config, "num_fused_shared_experts", 0)
    output = getattr(config.output_format, "name", "STANDARD")
    problems = {
        "grouped routing is not supported yet": config.use_grouped_topk,
        "a selection bias is not supported yet": config.correction_bias is not None,
        f"{config.scoring_func} scores are not supported yet": config.scoring_func != "softmax",
        "the model brings its own routing function": config.custom_routing_function is not None,
        "shared experts in the routing's last columns are not supported yet": bool(shared),
        "scaled routing weights are not supported yet": config.apply_routed_scaling_factor_on_output,
        f"the {output} format never materialises the selection; use --moe-runner-backend triton": output != "STANDARD",
        "the router does not know its layer": layer < 0,
    }
    return next((why for why, is_so in problems.items() if is_so), None)


def num_experts(model: torch.nn.Module) -> int:
    """Experts that a layer's ranks hold together, redundant replicas included."""
    from sglang.srt.layers.moe.fused_moe_triton.layer import FusedMoE

    return max((module.num_experts for module in model.modules() if isinstance(module, FusedMoE)), default=0)


def expert_bytes(model: torch.nn.Module) -> dict[int, int]:
    """Bytes of one expert's weights, scales included, over all ranks that share it, by layer."""
    from sglang.srt.layers.moe.fused_moe_triton.layer import FusedMoE

    sizes = {}
    for module in model.modules():
        if isinstance(module, FusedMoE):
            held = [each for each in module.parameters() if each.dim() > 1 and len(each) == module.num_local_experts]
            here = sum(each.numel() * each.element_size() for each in held) // module.num_local_experts
            sizes[int(module.layer_id)] = here * module.moe_tp_size
    return sizes
