"""Experts that loading left as they were allocated: told by a mark that a checkpoint's weights
overwrite.

SGLang builds experts where some configs have dense layers (`mlp_only_layers`, `decoder_sparse_step`
of Qwen3-MoE), and serves whatever lies in that memory."""

from __future__ import annotations

import math
from typing import Any

import torch

FILLS_FIRST = ("auto", "safetensors", "pt", "npcache")
"""Values of `--load-format` under which weights are there before
`process_weights_after_loading`."""


def mark(layer: Any) -> None:
    """End of `create_weights`: one number of each of an expert's matrices is none until it is
    loaded."""
    for first in _firsts(layer):
        first.fill_(math.nan)


def problem(layer: Any) -> str | None:
    """Why a layer that was loaded cannot serve: some of its experts were not. None if all were."""
    unfilled = torch.stack([first.isnan() for first in _firsts(layer)]).any(0).tolist()
    if not any(unfilled):
        return None
    return (
        f"layer {layer.layer_id}: the checkpoint has no weights for {sum(unfilled)} of its"
        f" {len(unfilled)} experts; if the layer is dense there (mlp_only_layers,"
        " decoder_sparse_step), SGLang does not build it so"
    )


def not_finite(w13: torch.Tensor, w2: torch.Tensor) -> list[int]:
    """The experts that hold NaN or infinity, in whatever order their weights are."""
    return [
        expert
        for expert in range(len(w13))
        if not (w13[expert].isfinite().all() and w2[expert].isfinite().all())
    ]


def fills_first() -> bool:
    """Whether the server's loader has filled a layer by the time it is processed."""
    from sglang.srt.runtime_context import get_server_args

    return getattr(get_server_args(), "load_format", None) in FILLS_FIRST


def _firsts(layer: Any) -> list[torch.Tensor]:
    """[N] each, the first number of gate, up and down: padding lies behind."""
    w13, w2 = layer.w13_weight.data, layer.w2_weight.data
    return [w13[:, 0, 0], w13[:, w13.shape[1] // 2, 0], w2[:, 0, 0]]
