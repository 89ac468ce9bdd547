"""Runners that choose experts inside their own kernel, and take experts that were chosen for them
as well.

Seam: `TopKConfig.output_format` after the model is built. From SGLang 0.5.23 on `flashinfer_trtllm`
(its choice on Blackwell for Qwen3, DeepSeek, Kimi, GLM) has a kernel for each: routed by logits
(BYPASSED), or by ids and weights (STANDARD; `materialized_topk` in moe_runner/flashinfer_trtllm.py,
for BF16, FP8 and FP4). Before that BF16 and FP8 have the second by the name of
`flashinfer_trtllm_routed` alone.

`flashinfer_mxfp4` is three kernels. CUTLASS' on Hopper and on sm120 take ids and weights alone:
left to itself SGLang hands them logits, and chooses behind them, where before 0.5.23 no layer's
number is known. That of Blackwell's sm100 routes gpt-oss by logits alone (FP4 experts of
DeepSeek-V4 and Kimi-K3 by ids, which are STANDARD from the start)."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from oea_server.engine import formats

if TYPE_CHECKING:
    import torch

RUNNER, MXFP4, TRITON_KERNEL = "flashinfer_trtllm", "flashinfer_mxfp4", "triton_kernel"
CUTLASS = ("cutlass_sm90", "cutlass_sm120")
"""What `Mxfp4MoEMethod._fi_kernel` is where `flashinfer_mxfp4` takes ids and weights."""
ROUTED = "flashinfer_trtllm_routed"
WITHIN = ("CompressedTensorsMxInt4MoE", "ModelOptFp8MoEMethod")
"""Kinds of quantised experts whose kernel of this runner routes by logits alone: INT4 in groups of
32 (Kimi-K2.6), and ModelOpt's FP8 by tensor."""


def problem_of(runner: str | None, device: str, architectures: Sequence[str]) -> str | None:
    """What SGLang's resolved arguments tell before a model is built: why its experts would take no
    choice of ours."""
    import torch

    if runner == TRITON_KERNEL and device == "cpu":
        return f"--moe-runner-backend {TRITON_KERNEL}: its kernels run on GPUs alone; use triton"
    if runner != MXFP4 or device != "cuda" or "GptOssForCausalLM" not in architectures:
        return None
    if torch.cuda.get_device_capability()[0] != 10:
        return None
    return (
        f"--moe-runner-backend {MXFP4}: on this GPU it routes gpt-oss inside its own kernel, where"
        " a policy would be silently inert; use marlin, which keeps the experts' 4 bits as well,"
        " or triton, which unpacks them"
    )


def can() -> bool:
    """Whether this SGLang's `flashinfer_trtllm` takes experts that were chosen for it."""
    return _numbers(version("sglang")) >= (0, 5, 23)


def materialise(model: torch.nn.Module) -> int:
    """Have the model's routers choose before its experts run. Returns how many routers were
    changed."""
    from sglang.srt.layers.moe.fused_moe_triton.layer import FusedMoE
    from sglang.srt.layers.moe.topk import TopK, TopKOutputFormat

    experts = {int(each.layer_id): each for each in model.modules() if isinstance(each, FusedMoE)}
    changed = 0
    for module in model.modules():
        if not isinstance(module, TopK) or formats.of(module) != formats.BYPASSED:
            continue
        if takes_chosen(
            getattr(formats.runner_of(module), "value", None), experts.get(module.layer_id)
        ):
            module.topk_config.output_format = TopKOutputFormat.STANDARD
            changed += 1
    return changed


def takes_chosen(runner: str | None, experts: Any) -> bool:
    """Whether a layer's experts, which would choose by themselves, also take what was chosen.

    Args:
        experts: the layer's `FusedMoE`; None where it has none.
    """
    if runner == RUNNER:
        return can() and (experts is None or kind_of(experts) not in WITHIN)
    return (
        runner == MXFP4
        and getattr(getattr(experts, "quant_method", None), "_fi_kernel", None) in CUTLASS
    )


def kind_of(experts: Any) -> str:
    """The class by which a layer's quantised experts run; that of compressed tensors is its
    scheme."""
    return type(getattr(experts, "scheme", None) or experts.quant_method).__name__


def _numbers(text: str) -> tuple[int, ...]:
    """``0.5.23.post1`` -> (0, 5, 23)."""
    return tuple(int(part) for part in text.split(".")[:3] if part.isdigit())
