"""Mixture-of-experts layers on the CPU: one pair of matmuls per expert that is awake.

Seam: `UnquantizedFusedMoEMethod.register_oot_forward`, SGLang's own way for a platform to bring an
operator. SGLang's native version fails on id -1, with which the standard dispatcher marks experts
of other ranks.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F


def run_experts(
    x: torch.Tensor, w13: torch.Tensor, w2: torch.Tensor, weights: torch.Tensor, ids: torch.Tensor
) -> torch.Tensor:
    """Sum of each token's experts (SwiGLU), weighted.

    Args:
        x: [B, H] hidden states.
        w13: [N, 2I, H] gate and up projections, gate first.
        w2: [N, H, I] down projections.
        weights: [B, k] float32.
        ids: [B, k] local expert ids; -1 is an expert of another rank, and an id of weight 0 is an
            unused slot: neither is read.

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
    gate, up = torch.cat([F.linear(h, w13[e]) for e, h in zip(experts, each, strict=True)]).chunk(2, dim=-1)
    each = (F.silu(gate) * up).split(rows)
    y = torch.cat([F.linear(h, w2[e]) for e, h in zip(experts, each, strict=True)])
    out.index_add_(0, tokens, y.float() * weights.flatten()[order][:, None])
    return out.to(x.dtype)


def forward(self: Any, layer: Any, dispatch_output: Any) -> Any:
    """`UnquantizedFusedMoEMethod.forward` on our CPU platform."""
    from sglang.srt.layers.moe.token_dispatcher import StandardCombineInput

    config = layer.moe_runner_config
    plain = (
        config.activation == "silu"
        and not config.apply_router_weight_on_input
        and getattr(config, "gemm1_alpha", None) is None
        and getattr(layer, "w13_weight_bias", None) is None
    )
    if not plain:
        return self.forward_native(layer, dispatch_output)
    topk = dispatch_output.topk_output
    hidden = run_experts(
        dispatch_output.hidden_states, layer.w13_weight, layer.w2_weight, topk.topk_weights, topk.topk_ids
    )
    return StandardCombineInput(hidden_states=hidden)


def install(dispatch_key: str) -> None:
    """Serve unquantised experts by `forward` on the platform of that dispatch key."""
    from sglang.srt.layers.quantization.unquant import UnquantizedFusedMoEMethod

    UnquantizedFusedMoEMethod.register_oot_forward(UnquantizedFusedMoEMethod, forward, dispatch_key)
