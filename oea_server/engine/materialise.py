"""Runners that choose experts inside their own kernel, and take experts that were chosen for them as well.

Seam: `TopKConfig.output_format` after the model is built. From SGLang 0.5.23 on `flashinfer_trtllm` (its choice on
Blackwell for Qwen3, DeepSeek, Kimi, GLM) has a kernel for each: routed by logits (BYPASSED), or by ids and weights
(STANDARD; `materialized_topk` in moe_runner/flashinfer_trtllm.py, for BF16, FP8 and FP4). Before that BF16 and FP8
have the second by the name of `flashinfer_trtllm_routed` alone.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

RUNNER = "flashinfer_trtllm"
ROUTED = "flashinfer_trtllm_routed"
WITHIN = ("CompressedTensorsMxInt4MoE", "ModelOptFp8MoEMethod")
"""Kinds of quantised experts whose kernel of this runner routes by logits alone: INT4 in groups of 32 (Kimi-K2.6), and
ModelOpt's FP8 by tensor."""


def can() -> bool:
    """Whether this SGLang's `flashinfer_trtllm` takes experts that were chosen for it."""
    return _numbers(version("sglang")) >= (0, 5, 23)


def materialise(model: torch.nn.Module) -> int:
    """Have the model's routers choose before its experts run; how many of them did not."""
    from sglang.srt.layers.moe.fused_moe_triton.layer import FusedMoE
    from sglang.srt.layers.moe.topk import TopK, TopKOutputFormat

    if not can():
        return 0
    within = {int(each.layer_id) for each in model.modules() if isinstance(each, FusedMoE) and kind_of(each) in WITHIN}
    changed = 0
    for module in model.modules():
        if isinstance(module, TopK) and module.layer_id not in within:
            config = module.topk_config
            runner = getattr(config.runner_backend, "value", None)
            if config.output_format is TopKOutputFormat.BYPASSED and runner == RUNNER:
                config.output_format = TopKOutputFormat.STANDARD
                changed += 1
    return changed


def kind_of(experts: Any) -> str:
    """The class by which a layer's quantised experts run; that of compressed tensors is its scheme."""
    return type(getattr(experts, "scheme", None) or experts.quant_method).__name__


def _numbers(text: str) -> tuple[int, ...]:
    """``0.5.23.post1`` -> (0, 5, 23)."""
    return tuple(int(part) for part in text.split(".")[:3] if part.isdigit())
