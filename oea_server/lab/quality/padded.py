"""Steps with pad rows, as a CUDA graph of a fixed size has them: pad rows must change nothing."""

from __future__ import annotations

import torch

from oea_server.lab.quality import serving
from oea_server.lab.quality.arms import Arm, Chooser
from oea_server.lab.quality.routed import Routers
from oea_server.routing.policy import Policy


def padded(label: str, policy: Policy, rows: int, dtype: torch.dtype | None = None) -> Arm:
    """An arm whose steps carry `rows` more rows, with the logits of other steps' tokens in them.

    Args:
        dtype: what the logits are rounded to before routing; the model's own if None.
    """

    def chooser(found: Routers) -> Chooser:
        def choose(logits: torch.Tensor, layer: int) -> serving.Routed:
            real = logits.shape[-2]
            strangers = logits.roll(1, dims=1)[..., :1, :].flip(-1)
            strangers = strangers.expand(*logits.shape[:-2], rows, logits.shape[-1])
            steps = torch.cat([logits, strangers], dim=-2).to(dtype or logits.dtype)
            routed = serving.route(steps, policy, found, layer, real)
            mine = slice(0, real)
            return routed._replace(
                weights=routed.weights[..., mine, :], ids=routed.ids[..., mine, :]
            )

        return choose

    return Arm(label, policy.name, policy, chooser)
