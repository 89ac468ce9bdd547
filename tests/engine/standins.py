"""Arithmetic of single kernels in plain torch, for tiny models of families whose attention or
experts want a GPU's.

Only `tests.engine.run_families` installs them, in the modules of these models alone: with our
router and without."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch.nn import functional

from oea_server.cpu.loop import run_experts


def sums_of_squares(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Of the rows of both: [2 B] float32. `rms_sumsq_serial`, MiniMax-M2's norm over all heads."""
    return torch.cat([each.float().square().sum(-1) for each in (first, second)])


def normed(
    first: torch.Tensor,
    second: torch.Tensor,
    first_weight: torch.Tensor,
    second_weight: torch.Tensor,
    sums: torch.Tensor,
    ranks: int = 1,
    eps: float = 1e-5,
) -> tuple[torch.Tensor, ...]:
    """The rest of that norm, `rms_apply_serial`."""
    pairs = zip((first, second), (first_weight, second_weight), sums.chunk(2), strict=True)
    return tuple(
        (x.float() * (each[:, None] / x.shape[1] / ranks + eps).rsqrt() * weight.float()).to(
            x.dtype
        )
        for x, weight, each in pairs
    )


def experts_beside_the_layer(
    hidden: torch.Tensor, w1: torch.Tensor, w2: torch.Tensor, topk_output: Any, **_: Any
) -> torch.Tensor:
    """`fused_moe` of Trinity, whose experts are no `FusedMoE`: [B, H]."""
    return run_experts(hidden, w1, w2, topk_output.topk_weights, topk_output.topk_ids)


def convolved(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    query_start_loc: torch.Tensor,
    cache_indices: torch.Tensor,
    has_initial_state: torch.Tensor,
    conv_states: torch.Tensor,
    activation: None = None,
) -> torch.Tensor:
    """`causal_conv1d_fn` of LFM2: each channel by itself, and its last columns kept for the next
    token.

    Args:
        x: [channels, tokens] of all sequences.
        weight: [channels, width].
        conv_states: [slots, channels, width - 1].
    """
    starts, found = query_start_loc.tolist(), []
    for start, end, slot, goes_on in zip(
        starts, starts[1:], cache_indices, has_initial_state, strict=False
    ):
        before = conv_states[slot] * goes_on
        columns = torch.cat([before, x[:, start:end]], dim=1)
        conv_states[slot] = columns[:, columns.shape[1] - before.shape[1] :].to(conv_states.dtype)
        found.append(functional.conv1d(columns, weight[:, None], bias, groups=len(weight)))
    return torch.cat(found, dim=1)


def convolved_token(
    x: torch.Tensor,
    conv_state: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    activation: None = None,
    conv_state_indices: torch.Tensor | None = None,
) -> torch.Tensor:
    """`causal_conv1d_update`: one token, [B, channels], of each sequence."""
    window = torch.cat([conv_state[conv_state_indices], x[..., None]], dim=-1)
    conv_state[conv_state_indices] = window[..., 1:].to(conv_state.dtype)
    found = (window * weight).sum(-1)
    return found if bias is None else found + bias


def gated(attention: torch.Tensor, gate: torch.Tensor, inplace: bool = True) -> torch.Tensor:
    """`fused_sigmoid_mul`, the gate behind Qwen3.5's attention: [B, H], and [B, H] or [B, heads,
    D]."""
    return attention.mul_(gate.reshape(attention.shape).sigmoid())


def multiplied(first: torch.Tensor, second: torch.Tensor, out_dtype: torch.dtype) -> torch.Tensor:
    """`aten::mm.dtype`, by which Nemotron-3 computes its router's logits: torch has it for GPUs
    alone."""
    return first.to(out_dtype) @ second.to(out_dtype)


def rows_of_tokens(original: Callable[..., Any]) -> Callable[..., Any]:
    """`RadixAttention.forward` for Hunyuan-A13B, which hands over a row for each head: SGLang
    0.5.23 takes most of them for padding of a prefill."""

    def forward(self: Any, q: torch.Tensor, k: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        flat = q.reshape(-1, self.tp_q_head_num * self.qk_head_dim)
        return original(self, flat, k.reshape(len(flat), -1), *args, **kwargs)

    return forward


STANDINS: dict[str, dict[str, Any]] = {
    "minimax_m2": {"rms_sumsq_serial": sums_of_squares, "rms_apply_serial": normed},
    "afmoe": {"fused_moe": experts_beside_the_layer},
    "qwen3_5": {"fused_sigmoid_mul": gated},
    "lfm2_moe": {"causal_conv1d_fn": convolved, "causal_conv1d_update": convolved_token},
}
"""A module of `sglang.srt.models` -> the names in it, and what stands for them."""


def install() -> None:
    for name, functions in STANDINS.items():
        module = import_module(f"sglang.srt.models.{name}")
        for symbol, ours in functions.items():
            assert hasattr(module, symbol), f"{name}.{symbol}"
            setattr(module, symbol, ours)
    hunyuan: Any = import_module("sglang.srt.models.hunyuan")
    theirs = hunyuan.RadixAttention
    hunyuan.RadixAttention = type(
        "RowsOfTokens", (theirs,), {"forward": rows_of_tokens(theirs.forward)}
    )
    torch.library.impl("aten::mm.dtype", "CPU")(multiplied)
