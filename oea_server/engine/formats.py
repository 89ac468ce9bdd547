"""In which form a router hands its choice to its layer's experts.

Seam: `sglang.srt.layers.moe.topk.TopK`. Only a STANDARD choice is made where a policy can make it,
by `select_experts`; a BYPASSED one is made inside the experts' kernel, and `engine.triton_experts`
makes that of TRITON_KERNEL."""

from __future__ import annotations

from typing import Any

STANDARD, BYPASSED, TRITON_KERNEL = "STANDARD", "BYPASSED", "TRITON_KERNEL"


def of(topk: Any) -> str:
    """Name of the `TopKOutputFormat` of a built `TopK`.

    0.5.23 binds it when the model is built. Before, `TopK.forward_cuda` asks in each step for the
    runner of the whole server. It also asks whether the checkpoint's experts are FP4 (DeepSeek-V4),
    which flashinfer_mxfp4 runs by ids and weights."""
    bound = topk.topk_config.output_format
    if bound is not None:
        return str(bound.name)
    if hasattr(topk, "bind_runner_backend"):  # a model that binds none has experts without a runner
        return STANDARD
    runner = of_server()
    if runner.is_triton_kernels():
        return TRITON_KERNEL
    if runner.is_experimental_sgl_trtllm():
        return STANDARD if with_lora() else BYPASSED
    by_logits = runner.is_flashinfer_trtllm() or (
        runner.is_flashinfer_mxfp4() and not topk.is_fp4_experts
    )
    return BYPASSED if by_logits else STANDARD


def of_server() -> Any:
    """The runner that the whole server's experts are asked to use: a `MoeRunnerBackend`."""
    from sglang.srt.layers.moe.utils import get_moe_runner_backend

    return get_moe_runner_backend()


def runner_of(topk: Any) -> Any:
    """The runner of a `TopK`'s experts; None where it has none."""
    return topk.topk_config.runner_backend if hasattr(topk, "bind_runner_backend") else of_server()


def with_lora() -> bool:
    from sglang.srt.runtime_context import get_lora

    try:
        return bool(get_lora().enable_lora)
    except ValueError:  # no server is configured
        return False
