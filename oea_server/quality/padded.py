"""Steps with pad rows, as a CUDA graph of a fixed size has them: they must change nothing."""

from __future__ import annotations

import torch

from oea_server.quality.arms import Arm, Chooser
from oea_server.quality.routed import Routers
from oea_server.routing import eager
from oea_server.routing.policy import Policy


def padded(label: str, policy: Policy, rows: int) -> Arm:
    """An arm whose steps carry `rows` more rows, with the logits of other steps' tokens in them."""

    def chooser(found: Routers) -> Chooser:
        def choose(logits: torch.Tensor, layer: int) -> eager.Routing:
            real = logits.shape[-2]
            strangers = logits.roll(1, dims=1)[..., :1, :].flip(-1).expand(*logits.shape[:-2], rows, logits.shape[-1])
            routing = eager.route(
                torch.cat([logits, strangers], dim=-2),
                policy,
                k=found.k,
                renormalize=found.renormalize,
                num_real=real,
                layer=layer,
            )
            return eager.Routing(routing.weights[..., :real, :], routing.ids[..., :real, :], routing.pool)

        return choose

    return Arm(label, policy.name, policy, chooser)
