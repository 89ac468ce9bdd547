"""What lies between an expert's two matrices, where that is no plain SwiGLU.

As `fused_experts_impl` in sglang/srt/layers/moe/moe_runner/triton_utils/fused_moe.py has it, by the
fields of a layer's `MoeRunnerConfig`. SGLang's own plain torch (`moe_forward_native`) knows
gpt-oss' and GELU, and would leave limits out."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.nn import functional

Activation = Callable[[torch.Tensor], torch.Tensor]
"""[rows, 2I], gate first, or where there is no gate [rows, I] -> [rows, I]."""


def swiglu(first: torch.Tensor) -> torch.Tensor:
    gate, up = first.chunk(2, dim=-1)
    return functional.silu(gate) * up


def limited(first: torch.Tensor, limit: float) -> torch.Tensor:
    """Step-3.5's last layers: what SiLU gives is limited."""
    gate, up = first.chunk(2, dim=-1)
    return functional.silu(gate).clamp(max=limit) * up.clamp(-limit, limit)


def limited_before(first: torch.Tensor, limit: float) -> torch.Tensor:
    """DeepSeek-V4: what SiLU takes is."""
    gate, up = first.chunk(2, dim=-1)
    return functional.silu(gate.clamp(max=limit)) * up.clamp(-limit, limit)


def in_halves(first: torch.Tensor, alpha: float, limit: float) -> torch.Tensor:
    """MiniMax-M3: gpt-oss' formula, whose gates and ups lie in halves, not in turn."""
    gate, up = first.chunk(2, dim=-1)
    gate = gate.clamp(max=limit)
    return gate * torch.sigmoid(gate * alpha) * (up.clamp(-limit, limit) + 1)


def squared_relu(first: torch.Tensor) -> torch.Tensor:
    """Nemotron-3, without a gate."""
    return first.relu().square()


def of(config: Any) -> Activation | None:
    """A layer's activation; None where it is left to SGLang.

    Args:
        config: its `MoeRunnerConfig`.
    """
    alpha: Any = getattr(config, "gemm1_alpha", None)
    limit: Any = getattr(config, "gemm1_clamp_limit", None)
    before: Any = getattr(config, "swiglu_limit", None)
    if config.activation == "relu2" and not getattr(config, "is_gated", True):
        return squared_relu
    if config.activation != "silu":
        return None
    if alpha is not None:
        return (
            None
            if getattr(config, "gate_up_interleaved", True)
            else partial(in_halves, alpha=alpha, limit=limit)
        )
    if limit is not None:
        return partial(limited, limit=limit)
    return swiglu if before is None else partial(limited_before, limit=before)
