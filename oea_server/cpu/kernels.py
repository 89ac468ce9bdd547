"""Triton kernels that SGLang launches whatever the device: two in plain torch, all others refused
by name.

Seams: `fused_gate_sigmoid_mul` and `fused_gate_sigmoid_mul_add` of
`sglang.kernels.ops.elementwise.elementwise`, the gate of Qwen's shared expert (Qwen2-MoE,
Qwen3-Next and what is built of their blocks), and `zero_experts_compute_triton` of
`sglang.kernels.ops.moe.ep_moe_kernels`, LongCat's experts that compute nothing, before models
import them; and Triton's own launch, where a kernel would otherwise end in a traceback about
drivers."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, NoReturn

import torch

MODULE = "sglang.kernels.ops.elementwise.elementwise"
IMPORTED_BY = "sglang.srt.models.qwen2_moe"


def gate_sigmoid_mul(
    hidden: torch.Tensor, gate: torch.Tensor, shared: torch.Tensor
) -> torch.Tensor:
    """The shared expert's output, times the sigmoid of its gate; in float32 until the end, as in
    the kernel.

    Args:
        hidden: [B, H].
        gate: [H].
        shared: [B, H].
    """
    return gated(hidden, gate, shared).to(shared.dtype)


def gate_sigmoid_mul_add(
    hidden: torch.Tensor, gate: torch.Tensor, shared: torch.Tensor, final: torch.Tensor
) -> None:
    """`gate_sigmoid_mul`, added to `final` in place."""
    final.copy_(gated(hidden, gate, shared) + final)


def gated(hidden: torch.Tensor, gate: torch.Tensor, shared: torch.Tensor) -> torch.Tensor:
    """[B, H] float32."""
    return (hidden.float() * gate.float()).sum(-1, keepdim=True).sigmoid() * shared.float()


def zero_experts(
    expert_indices: torch.Tensor,
    expert_scales: torch.Tensor,
    num_experts: int,
    zero_expert_type: str,
    hidden_states: torch.Tensor,
) -> torch.Tensor:
    """What experts that compute nothing add: the token itself, as often as the router weighs them.

    Their ids and weights become 0 in place, as in SGLang: the first expert, weighed by nothing,
    stands for them.

    Args:
        expert_indices, expert_scales: [B, k].
        num_experts: those with weights, in front of the others.
        zero_expert_type: SGLang computes "identity" alone.
        hidden_states: [B, H].
    """
    if zero_expert_type != "identity":
        raise ValueError(
            f"zero_expert_type={zero_expert_type} is not identity, which is all that SGLang"
            " computes"
        )
    zero = expert_indices >= num_experts
    added = (expert_scales * zero).sum(-1, keepdim=True) * hidden_states.float()
    expert_indices.masked_fill_(zero, 0)
    expert_scales.masked_fill_(zero, 0.0)
    return added.to(hidden_states.dtype)


ZERO_EXPERTS = "sglang.kernels.ops.moe.ep_moe_kernels", "zero_experts_compute_triton"
STANDINS = {
    "fused_gate_sigmoid_mul": gate_sigmoid_mul,
    "fused_gate_sigmoid_mul_add": gate_sigmoid_mul_add,
}


def install() -> None:
    """Put the stand-ins where SGLang's models will import them, and a refusal where Triton
    launches."""
    import importlib

    source = importlib.import_module(MODULE)
    for module in (source, sys.modules.get(IMPORTED_BY)):
        for name, ours in STANDINS.items():
            if hasattr(module, name):  # 0.5.17 has one of them
                setattr(module, name, ours)
    module_name, name = ZERO_EXPERTS
    setattr(importlib.import_module(module_name), name, zero_experts)
    refuse_others()


def refuse_others() -> None:
    """Say which kernel a model needs, in one line. Under TRITON_INTERPRET kernels run anywhere, by
    another way."""
    from triton.runtime.autotuner import Autotuner
    from triton.runtime.jit import JITFunction

    for kind in (JITFunction, Autotuner):
        kind.run = refused


def refused(kernel: Any, *_: Any, **__: Any) -> NoReturn:
    """In place of `run` of a kernel."""
    from oea_server.engine import guard

    function: Callable[..., Any] = getattr(kernel, "base_fn", None) or kernel.fn
    where = f"{function.__module__}.{function.__qualname__}"
    guard.end(f"this model needs {where}, a Triton kernel, which no CPU runs: serve it on a GPU")
