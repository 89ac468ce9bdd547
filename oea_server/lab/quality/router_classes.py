"""How the router modules of transformers 5 route, read from the modules: a family is one entry of
`KNOWN`.

Seam: `TopKRouter` modules and their like. They return logits, weights and ids, in this order or in
another; some are handed their selection bias by the block that holds them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from oea_server.routing import Router


class Outputs(NamedTuple):
    """Where in what a router returns its logits, weights and ids are."""

    logits: int = 0
    weights: int = 1
    ids: int = 2


class Class(NamedTuple):
    """One class of router modules.

    Args:
        read: a module of it and the block that holds it -> how it routes.
    """

    read: Callable[[Any, Any], Router]
    outputs: Outputs = Outputs()


def softmax(module: Any, block: Any) -> Router:
    """The best of a softmax, weights divided by their sum where the checkpoint says so."""
    return Router(module.top_k, bool(module.norm_topk_prob))


def softmax_of_the_best(module: Any, block: Any) -> Router:
    """A softmax over the k best logits alone: that of all, weights divided by their sum."""
    return Router(module.top_k)


def ernie(module: Any, block: Any) -> Router:
    """A softmax, with a selection bias."""
    return Router(module.top_k, bias=module.moe_statics.e_score_correction_bias)


def deepseek_v2(module: Any, block: Any) -> Router:
    """A softmax, weights as they are, or the best groups by their best expert."""
    scale = float(module.routed_scaling_factor)
    if module.topk_method == "greedy":
        return Router(module.top_k, renormalize=False, scale=scale)
    return grouped(module, renormalize=False, scale=scale, group_score="max")


def deepseek_v3(module: Any, block: Any) -> Router:
    """Sigmoids with a selection bias, the best groups by their two best experts, a factor."""
    return grouped(
        module,
        renormalize=bool(module.norm_topk_prob),
        scoring="sigmoid",
        bias=module.e_score_correction_bias,
        scale=float(module.routed_scaling_factor),
    )


def grouped(module: Any, **fields: Any) -> Router:
    """A router of groups, which are in its own fields."""
    return Router(module.top_k, groups=module.num_group, top_groups=module.topk_group, **fields)


def sigmoid(module: Any, block: Any) -> Router:
    """Sigmoids with a selection bias, which the module has or its block; weights divided by their
    sum; a factor."""
    names = ("e_score_correction_bias", "expert_bias")
    held = (getattr(holder, name, None) for holder in (module, block) for name in names)
    bias: torch.Tensor | None = next((each for each in held if each is not None), None)
    factors = ("routed_scaling_factor", "router_scaling_factor", "route_scale")
    scale = next((float(getattr(module, name)) for name in factors if hasattr(module, name)), 1.0)
    return Router(
        module.top_k, bool(getattr(module, "norm_topk_prob", True)), "sigmoid", bias, scale=scale
    )


def cohere(module: Any, block: Any) -> Router:
    """A softmax over the k best, or sigmoids."""
    if module.expert_selection_fn == "softmax":
        return softmax_of_the_best(module, block)
    return sigmoid(module, block)


def _classes(names: str, *entry: Any) -> dict[str, Class]:
    return dict.fromkeys(names.split(), Class(*entry))


KNOWN: dict[str, Class] = {
    **_classes(
        "Qwen2MoeTopKRouter Qwen3MoeTopKRouter Qwen3NextTopKRouter OlmoeTopKRouter"
        " FlexOlmoTopKRouter MellumTopKRouter",
        softmax,
    ),
    **_classes(
        "Qwen3_5MoeTopKRouter MixtralTopKRouter MiniMaxTopKRouter GptOssTopKRouter HunYuanMoEV1Gate"
        " GraniteMoeSWATopKRouter",
        softmax_of_the_best,
    ),
    **_classes(
        "GraniteMoeTopKRouter GraniteMoeSharedTopKRouter GraniteMoeHybridTopKRouter"
        " AriaTextTopKRouter",
        softmax_of_the_best,
        Outputs(logits=2, weights=1, ids=0),
    ),
    **_classes("Ernie4_5_MoeTopKRouter", ernie),
    **_classes("DeepseekV2TopkRouter", deepseek_v2),
    **_classes(
        "AXK1TopkRouter DeepseekV3TopkRouter DeepseekV32TopkRouter Dots1TopkRouter"
        " ExaoneMoeTopkRouter Glm4MoeTopkRouter Glm4MoeLiteTopkRouter GlmMoeDsaTopkRouter"
        " KimiLinearTopkRouter MiMoV2FlashTopkRouter NemotronHTopkRouter SolarOpenTopkRouter"
        " HYV4TopkRouter",
        deepseek_v3,
    ),
    **_classes(
        "MiniMaxM2TopKRouter MiniMaxM3VLTopKRouter HYV3TopKRouter Lfm2MoeTopKRouter"
        " AfmoeTokenChoiceRouter LagunaTopKRouter",
        sigmoid,
    ),
    **_classes("Cohere2MoeTopKRouter", cohere),
}
"""By name of the class: importing them all would import half of transformers."""
