"""SGLang's own kernels, as they are: what ours is measured against, and on a GPU the experts
themselves.

Symbols: `sglang.srt.layers.moe.topk.fused_topk` (Triton router), `fused_topk_torch_native` (CPU),
`sglang.kernels.ops.moe.topk_softmax` (compiled), `...triton_utils.fused_moe.fused_experts`. The
CUDA half has not yet run on a GPU; its calls were read in SGLang 0.5.17 and 0.5.23."""

from __future__ import annotations

import os
from collections.abc import Callable

import torch

Router = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""logits [B, N] -> (weights [B, k] float32, ids [B, k]), renormalised."""

Experts = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""(x [B, H], weights [B, k] float32, ids [B, k] int32, -1 for another rank's) -> [B, H]."""


def torch_router(k: int) -> Router:
    """Softmax, top-k and renormalisation in three torch operators."""

    def route(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        weights, ids = logits.float().softmax(dim=-1).topk(k, dim=-1)
        return weights / weights.sum(dim=-1, keepdim=True), ids.int()

    return route


def native_router(k: int) -> Router:
    """SGLang's router without a GPU."""
    from sglang.srt.layers.moe.topk import fused_topk_torch_native

    # of the hidden states, only the number of rows is read
    return lambda logits: fused_topk_torch_native(logits, logits, k, True)


def triton_router(k: int) -> Router:
    """SGLang's Triton router: its default on CUDA, in 0.5.17 by an environment variable."""
    os.environ["SGLANG_OPT_USE_JIT_KERNEL_FUSED_TOPK"] = "true"
    from sglang.srt.layers.moe.topk import fused_topk

    return lambda logits: fused_topk(logits, logits, k, True)


def compiled_router(k: int) -> Router:
    """SGLang's compiled CUDA kernel, `topk_softmax`."""
    from sglang.kernels.ops.moe import topk_softmax

    def route(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        weights = torch.empty(len(logits), k, dtype=torch.float32, device=logits.device)
        ids = torch.empty(len(logits), k, dtype=torch.int32, device=logits.device)
        topk_softmax(weights, ids, logits, True)
        return weights, ids

    return route


def flashinfer_router(k: int) -> Router:
    """FlashInfer's top-k, and the softmax over what it chose: the same weights, renormalised.

    Its fused softmax router (`trtllm_gen_routing`) needs compute capability 10 or 12.
    """
    from flashinfer import top_k

    def route(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        values, ids = top_k(logits.float(), k, sorted=True)
        return values.softmax(dim=-1), ids.int()

    return route


def gpu_experts(w13: torch.Tensor, w2: torch.Tensor, num_experts: int) -> Experts:
    """SGLang's fused Triton experts, in place as its Qwen3-MoE runs them: x is overwritten.

    Args:
        w13: [local, 2I, H] bfloat16, gate first.
        w2: [local, H, I] bfloat16.
        num_experts: of the whole layer; where that is more than local, ids of -1 are left out.
    """
    from sglang.srt.layers.moe.moe_runner import MoeRunnerConfig
    from sglang.srt.layers.moe.moe_runner.triton_utils.fused_moe import fused_experts
    from sglang.srt.runtime_context import get_context

    get_context().override_server_args().install()  # the kernels ask the server's configuration
    config = MoeRunnerConfig(num_experts=num_experts, num_local_experts=len(w13), inplace=True)
    return lambda x, weights, ids: fused_experts(x, w13, w2, (weights, ids, weights), config)
