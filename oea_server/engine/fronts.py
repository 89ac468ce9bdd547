"""Turns off what routes past `select_experts`, where no routing of ours would be asked and nothing
counted.

Seam: `sglang.srt.models.kimi_k3.KimiK3MoE._routing_contract_ok`, by which one kernel projects,
routes and chooses at once. The other known is DeepSeek-V4.1's mega gate
(`sglang.srt.layers.moe.mega_gate`), which runs with the backend megamoe alone: there such layers
are refused."""

from __future__ import annotations

import logging

import torch

logger = logging.getLogger(__name__)

MERGED, ASKED = "_ep_front", "_routing_contract_ok"
"""What a block calls for its merged front, and what it asks before."""


MEGA, OF_MEGA = "mega_gate_supported", "deepseek_v41"
"""What a block is asked before its mega gate, and the model type that has one."""


def problem_of(block: torch.nn.Module | None) -> str:
    """What a block's merged front still does by itself; empty if it is turned off, or if there is
    none."""
    kind = type(block)
    if (
        hasattr(kind, MEGA)
        and getattr(getattr(block, "config", None), "model_type", "") == OF_MEGA
        and by_megamoe()
    ):
        return "chooses its experts in megamoe's own gate"
    merged = hasattr(kind, MERGED) and getattr(kind, ASKED, True) is not False
    return "chooses its experts in a merged front" if merged else ""


def by_megamoe() -> bool:
    """Whether experts are computed by the all-to-all backend that has a gate of its own."""
    from sglang.srt.layers.moe.utils import get_moe_a2a_backend

    return bool(get_moe_a2a_backend().is_megamoe())


def turn_off(model: torch.nn.Module) -> None:
    """Let every block of a model ask `select_experts`: SGLang drops what a block itself holds once
    weights load."""
    kinds = {type(module) for module in model.modules() if hasattr(type(module), ASKED)}
    for kind in kinds:
        setattr(kind, ASKED, False)
        logger.info("OEA: %s routes by select_experts, without its merged front", kind.__name__)
