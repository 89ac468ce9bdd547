"""What a router is like, and why some routers cannot be handled: the one list of reasons.

Read off built modules by `routers`, and off a model's config by `families`, so that both say it
in the same words.
"""

from __future__ import annotations

from typing import NamedTuple


class Traits(NamedTuple):
    """One router, in the terms of SGLang's `TopKConfig`. The defaults are what can be handled."""

    groups: int = 0
    """Groups that the experts are chosen by: 0 without `use_grouped_topk`, else `num_expert_group`."""
    biased: bool = False
    """Whether experts are chosen by score plus `correction_bias`."""
    scoring: str = "softmax"
    """As SGLang computes it: a biased choice by groups scores by sigmoid, whatever it is told."""
    own_function: bool = False
    """Whether the model gives a `custom_routing_function`."""
    elsewhere: bool = False
    """Whether the model chooses experts without SGLang's `TopK`."""
    shared_columns: bool = False
    """Whether the last columns of the choice are shared experts."""
    scaled: bool = False
    """`apply_routed_scaling_factor_on_output`."""
    output: str = "STANDARD"
    """Name of the `TopKOutputFormat`."""
    knows_layer: bool = True
    """Whether the `TopK` was given its `layer_id`."""


def unsupported(traits: Traits) -> str | None:
    """What a model does that cannot be handled, the first that holds; None if it all can be.

    Returns:
        What comes after "the model": "routes by sigmoid scores, which is not supported yet".
    """
    not_yet = "which is not supported yet"
    scores = f"routes by {traits.scoring} scores"
    reasons = {
        f"routes by groups of experts (grouped routing), {not_yet}": traits.groups > 1,
        f"{scores} and a bias, {not_yet}": traits.biased,
        f"{scores}, {not_yet}": traits.scoring != "softmax",
        f"brings its own routing function, {not_yet}": traits.own_function,
        f"chooses its experts outside SGLang's TopK, {not_yet}": traits.elsewhere,
        f"routes by one group of experts (grouped routing), {not_yet}": traits.groups == 1,
        f"puts shared experts into the routing's last columns, {not_yet}": traits.shared_columns,
        f"routes with scaled weights, {not_yet}": traits.scaled,
        f"runs experts whose {traits.output} format never materialises the selection; "
        "use --moe-runner-backend triton": traits.output != "STANDARD",
        "builds a router that does not know its layer": not traits.knows_layer,
    }
    return next((reason for reason, holds in reasons.items() if holds), None)
