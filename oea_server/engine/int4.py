"""INT4 experts in groups of 32 (Kimi-K2.6) on Blackwell's sm100, where SGLang takes a kernel that
routes by itself.

Seam: BEFORE `ServerArgs.check_server_args`, with `launch`. For these experts
`_deepseek_moe_quant_resolution` takes `flashinfer_trtllm`, whose kernel for INT4 gets logits alone
(`trtllm_mxint4_block_scale_moe`). Where nobody has asked for it, they run by `triton`: SGLang's own
choice on sm100 for the INT4 experts of other models (`CompressedTensorsWNA16TritonMoE`)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from oea_server.engine import conflicts, materialise, model_card
from oea_server.settings import Settings

logger = logging.getLogger(__name__)

SOURCE = "oea_server.engine.int4"
STEERED = (
    f"INT4 experts run by triton, not by {materialise.RUNNER}, SGLang's choice on this GPU, which"
    " routes inside its own kernel; which of them is faster was not measured; --oea-policy vanilla"
    " leaves SGLang its choice"
)


def steer(settings: Settings, server_args: Any) -> None:
    """Have INT4 experts in groups of 32 run by `triton` where a policy is to choose experts, and
    say so in one line.

    Args:
        server_args: SGLang's `ServerArgs`, resolved and not yet published.
    """
    if (
        settings.policy == "vanilla"
        or server_args.moe_runner_backend != "auto"
        or not materialise.can()
    ):
        return
    if conflicts.resolved(server_args).moe_runner_backend != materialise.RUNNER:
        return
    if not _in_groups_of_32(model_card.in_sglang(server_args) or {}):
        return
    from sglang.srt.arg_groups.overrides import declare_resolution

    declare_resolution(server_args, SOURCE, moe_runner_backend="triton")
    logger.warning("OEA: %s", STEERED)


def note(server_args: Any) -> list[str]:
    """What is said of arguments that were steered."""
    declared = getattr(server_args, "_resolved_overrides", None) or ()
    return [STEERED] if any(source == SOURCE for source, _ in declared) else []


def _in_groups_of_32(config: Mapping[str, Any]) -> bool:
    """Whether `CompressedTensorsMxInt4MoE` runs the experts."""
    quantised = (
        config.get("quantization_config")
        or (config.get("text_config") or {}).get("quantization_config")
        or {}
    )
    weights = ((quantised.get("config_groups") or {}).get("group_0") or {}).get("weights") or {}
    asked = {"num_bits": 4, "group_size": 32, "strategy": "group", "type": "int"}
    return (
        quantised.get("quant_method") == "compressed-tensors" and asked.items() <= weights.items()
    )
