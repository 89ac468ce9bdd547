"""How a router of SGLang's chooses and weighs, as the routing's own `Router`.

Seam: `sglang.srt.layers.moe.topk.TopKConfig`, whose fields models set late and whose tensors
weights are loaded into: it is read in each layer of each step."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import torch

from oea_server import routing
from oea_server.routing.contract import GroupScore, Scoring


class Source(NamedTuple):
    """Where a router's rule is read."""

    config: Any
    native: bool = False
    """Whether SGLang chooses in plain torch here. There softmax scores take the bias too; its
    kernels leave it out."""
    function: Any = None
    """The model's own `custom_routing_function`, as it was when the model was built."""
    zero_experts: int = 0
    """Experts behind the model's own that compute nothing."""

    def rule(self) -> routing.Router:
        config = self.config
        k, _ = columns(config)
        renormalize, scale = bool(config.renormalize), scale_on_output(config)
        if self.function is not None:
            given = own(self.function)
            return router(
                k,
                given.renormalize or renormalize,
                given.scoring,
                given.bias,
                1,
                1,
                "top2",
                scale,
                given.scale,
            )
        if config.use_grouped_topk:
            biased = config.correction_bias is not None
            # a biased choice by groups scores by sigmoid, whatever it is told
            scoring, score = ("sigmoid", "top2") if biased else (config.scoring_func, "max")
            groups = config.num_expert_group or 1, config.topk_group or 1
            return router(k, renormalize, scoring, config.correction_bias, *groups, score, scale)
        bias = config.correction_bias if self.native or config.scoring_func != "softmax" else None
        return router(
            k, renormalize, config.scoring_func, bias, scale=scale, zero_experts=self.zero_experts
        )


@lru_cache(maxsize=4096)
def router(
    k: int,
    renormalize: bool,
    scoring: Scoring = "softmax",
    bias: torch.Tensor | None = None,
    groups: int = 1,
    top_groups: int = 1,
    group_score: GroupScore = "top2",
    scale: float = 1.0,
    expert_scale: torch.Tensor | None = None,
    zero_experts: int = 0,
) -> routing.Router:
    """One rule for the layers that share it; tensors are told apart by identity."""
    groups_of = groups, top_groups, group_score
    return routing.Router(
        k, renormalize, scoring, bias, *groups_of, scale, expert_scale, zero_experts
    )


class Own(NamedTuple):
    """What a model's own `custom_routing_function` does, where a rule can say it."""

    scoring: Scoring
    bias: torch.Tensor | None = None
    scale: torch.Tensor | None = None
    """By expert."""
    renormalize: bool = False
    """Whether weights are divided by their sum, whatever the caller says."""


def _gemma4(function: Any) -> Own:
    """Softmax over the top k, which is softmax renormalized, times a number for each expert."""
    held = inspect.getclosurevars(function).nonlocals["per_expert_scale"]
    return Own("softmax", scale=held, renormalize=True)


def _trinity(function: Any) -> Own:
    return Own("sigmoid", function.keywords["expert_bias"])


def _command_a(function: Any) -> Own:
    return Own("sigmoid")


OWN_FUNCTIONS: dict[str, Callable[[Any], Own]] = {
    "gemma4_causal.Gemma4MoE.__init__.<locals>.routing_function": _gemma4,
    "afmoe.AfmoeMoE._custom_routing_function": _trinity,
    "cohere2_moe.cohere2_sigmoid_topk": _command_a,
}
"""The routing functions of SGLang's models that a rule can say, by their names under
`sglang.srt.models`.

Others: sparsemixer (Phi-3.5-MoE), softmax of a soft cap (Grok), a sigmoid on the input (Llama-4),
the best of each group (Intern-S1-Pro). """


@lru_cache(maxsize=4096)
def own(function: Any) -> Own:
    """What a model's own function does."""
    return OWN_FUNCTIONS[name_of(function)](function)


def name_of(function: Any) -> str:
    """A routing function's name, as `OWN_FUNCTIONS` has it."""
    made = function.func if isinstance(function, functools.partial) else function
    return f"{getattr(made, '__module__', '')}.{getattr(made, '__qualname__', '')}".removeprefix(
        "sglang.srt.models."
    )


def columns(config: Any) -> tuple[int, int]:
    """The experts that a token is routed to, and the columns behind them for shared ones."""
    slots = getattr(config, "num_shared_topk_slots", None)
    shared = int(getattr(config, "num_fused_shared_experts", 0) if slots is None else slots)
    return int(config.top_k) - shared, shared


def scale_on_output(config: Any) -> float:
    """What the router multiplies weights by; 1 where the model multiplies what the experts give
    instead."""
    applies = (
        config.apply_routed_scaling_factor_on_output and config.routed_scaling_factor is not None
    )
    return float(config.routed_scaling_factor) if applies else 1.0


def shared_weight(config: Any) -> float:
    """What a shared expert in a routing's last columns weighs: 1, once everything is scaled."""
    later = not config.apply_routed_scaling_factor_on_output and config.routed_scaling_factor
    return 1.0 / float(config.routed_scaling_factor) if later else 1.0


def said(rule: routing.Router, shared: int = 0) -> str:
    """A rule in words: "top-8 renormalized by sigmoid scores and a bias"."""
    by = f" by {rule.scoring} scores" if rule.scoring != "softmax" or rule.bias is not None else ""
    words = [
        f"top-{rule.k}",
        " renormalized" if rule.renormalize else "",
        by,
        " and a bias" if rule.bias is not None else "",
        (
            f" in {rule.top_groups} of {rule.groups} groups by {rule.group_score}"
            if rule.groups > 1
            else ""
        ),
        f" times {rule.scale:g}" if rule.scale != 1.0 else "",
        " times a number for each expert" if rule.expert_scale is not None else "",
        f" and {shared} shared" if shared else "",
        f", {rule.zero_experts} of the experts compute nothing" if rule.zero_experts else "",
    ]
    return "".join(words)


Choice = tuple[torch.Tensor, torch.Tensor]


def with_shared(chosen: Choice, columns: int, num_experts: int, weight: float) -> Choice:
    """A choice with the shared experts behind it: those after the last routed one, which all rows
    read."""
    weights, ids = chosen
    missing = columns - ids.shape[1]
    if missing <= 0:
        return chosen
    rows = len(ids)
    shared = torch.arange(num_experts, num_experts + missing, dtype=ids.dtype, device=ids.device)
    return (
        torch.cat([weights, weights.new_full((rows, missing), weight)], dim=1),
        torch.cat([ids, shared.expand(rows, -1)], dim=1),
    )


def in_place(config: Any, function: Callable[..., Choice]) -> Any:
    """A copy of a config by which SGLang asks `function` alone, and neither groups nor scales by
    itself."""
    ours = copy.copy(config)
    ours.custom_routing_function = function
    ours.use_grouped_topk = False  # it is looked at first
    ours.apply_routed_scaling_factor_on_output = False
    return ours
