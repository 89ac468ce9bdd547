"""What a router is like, and why some routers cannot be handled: the one list of reasons.

Read off built modules by `routers`, and off a model's config by `families`, so that both say it
in the same words.
"""

from __future__ import annotations

from typing import NamedTuple

SCORINGS = ("softmax", "sigmoid", "sqrtsoftplus")
"""Of the routing's contract, which needs torch: the command line asks without it."""

SEVERAL = "has several routers in one layer"
SEVERAL_GATES = "adds biases of several gates, token by token"
IMAGE_BIAS = "chooses image tokens' experts by a bias of their own, outside SGLang's TopK"
ZERO_EXPERTS = (
    "routes to experts that compute nothing, on several ranks, each of which adds what these give"
    " to the sum"
)
"""What some blocks do beside their `TopK`."""


class Traits(NamedTuple):
    """One router, in the terms of SGLang's `TopKConfig`. The defaults are softmax and nothing
    else."""

    groups: int = 0
    """Groups that the experts are chosen by: 0 without `use_grouped_topk`, else
    `num_expert_group`."""
    biased: bool = False
    """Whether experts are chosen by score plus `correction_bias`."""
    scoring: str = "softmax"
    """The scoring as SGLang computes it: a biased choice by groups scores by sigmoid, whatever the
    model asks for."""
    own_function: bool = False
    """Whether the model gives a `custom_routing_function` that no rule can say
    (`rules.OWN_FUNCTIONS`)."""
    elsewhere: bool = False
    """Whether the model chooses experts without SGLang's `TopK`."""
    apart: str = ""
    """What the router's block does beside its `TopK`: one of the above, empty if nothing."""
    output: str = "STANDARD"
    """Name of the `TopKOutputFormat`."""
    knows_layer: bool = True
    """Whether the `TopK` was given its `layer_id`."""


def unsupported(traits: Traits) -> str | None:
    """What a model does that cannot be handled, the first that holds; None if it all can be.

    Returns:
        What comes after "the model": "brings its own routing function, which is not supported yet".
    """
    not_yet = "which is not supported yet"
    reasons = {
        f"routes by {traits.scoring} scores, {not_yet}": traits.scoring not in SCORINGS,
        f"brings its own routing function, {not_yet}": traits.own_function,
        f"chooses its experts outside SGLang's TopK, {not_yet}": traits.elsewhere,
        f"{traits.apart}, {not_yet}": traits.apart,
        f"runs experts whose {traits.output} format never materialises the selection;"
        " use --moe-runner-backend triton": traits.output != "STANDARD",
        "builds a router that does not know its layer": not traits.knows_layer,
    }
    return next((reason for reason, holds in reasons.items() if holds), None)
