"""Turns off what routes past `select_experts`, where no routing of ours would be asked and nothing counted.

Seam: `sglang.srt.models.kimi_k3.KimiK3MoE._routing_contract_ok`, by which one kernel projects, routes and chooses at
once. The other known is DeepSeek-V4.1's mega gate, which only runs with an all-to-all backend: those are refused.
"""

from __future__ import annotations

import logging

import torch

logger = logging.getLogger(__name__)

MERGED, ASKED = "_ep_front", "_routing_contract_ok"
"""What a block calls for its merged front, and what it asks before."""


def problem_of(block: torch.nn.Module | None) -> str:
    """What a block does that was not kept from it; empty if it was, or has no such front."""
    kind = type(block)
    merged = hasattr(kind, MERGED) and getattr(kind, ASKED, True) is not False
    return "chooses its experts in a merged front" if merged else ""


def turn_off(model: torch.nn.Module) -> None:
    """Let every block of a model ask `select_experts`: SGLang drops what a block itself holds once weights load."""
    kinds = {type(module) for module in model.modules() if hasattr(type(module), ASKED)}
    for kind in kinds:
        setattr(kind, ASKED, False)
        logger.info("OEA: %s routes by select_experts, without its merged front", kind.__name__)
