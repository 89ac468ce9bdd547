"""Mixture-of-experts layers in plain torch: one pair of matmuls per expert that is awake.

Runs on any CPU and in any dtype. It reads weights at a third of the memory's speed, and oneDNN
builds a primitive for every new number of rows, which can take a second.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from oea_server.cpu.activations import Activation, swiglu


def run_experts(
    x: torch.Tensor,
    w13: torch.Tensor,
    w2: torch.Tensor,
    weights: torch.Tensor,
    ids: torch.Tensor,
    between: Activation = swiglu,
) -> torch.Tensor:
    """Sum of each token's experts, weighted.

    Args:
        x: [B, H] hidden states.
        w13: [N, 2I, H] gate and up projections, gate first.
        w2: [N, H, I] down projections.
        weights: [B, k] float32.
        ids: [B, k] local expert ids; -1 is an expert of another rank, and an id of weight 0 is an
            unused slot: neither is read.
        between: what lies between the two matrices.

    Returns:
        [B, H] in x's dtype, accumulated in float32.
    """
    ids = torch.where(weights == 0, -1, ids).flatten()
    order = ids.argsort(stable=True)
    order = order[torch.count_nonzero(ids < 0) :]
    tokens = order // weights.shape[1]
    awake, counts = ids[order].unique_consecutive(return_counts=True)
    experts, rows = awake.tolist(), counts.tolist()
    out = torch.zeros(x.shape, dtype=torch.float32)
    if not experts:
        return out.to(x.dtype)
    each = x[tokens].split(rows)
    each = between(
        torch.cat([F.linear(h, w13[e]) for e, h in zip(experts, each, strict=True)])
    ).split(rows)
    y = torch.cat([F.linear(h, w2[e]) for e, h in zip(experts, each, strict=True)])
    out.index_add_(0, tokens, y.float() * weights.flatten()[order][:, None])
    return out.to(x.dtype)
