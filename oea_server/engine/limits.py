"""What the fused launch takes on a GPU, and what happens beyond it: SGLang's own top k, never many
launches."""

from __future__ import annotations

import torch

from oea_server.routing.fastest import way


def problem_of(device: torch.device, num_experts: int, k: int) -> str | None:
    """Why a router of `num_experts` experts, `k` per token, cannot be routed in one launch on a
    GPU."""
    return beyond(device, 1, num_experts, k) or None


def beyond(device: torch.device, rows: int, num_experts: int, k: int) -> str:
    """Which bound of the fused launch `rows` rows of logits are above, empty where there is none.

    The CPU has no bound: its compiled loop takes all.
    """
    return way(device, rows, num_experts, k).why if device.type == "cuda" else ""


def most_rows() -> int:
    """The rows that the fused launch takes at most."""
    from oea_server.routing import fused

    return fused.MAX_BATCH


def fact(device_type: str) -> str | None:
    """What an operator has to know of the limits, in a sentence; None where nothing is bounded."""
    if device_type != "cuda":
        return None
    from oea_server.routing import fused

    return (
        f"steps of more than {fused.MAX_BATCH} rows, a CUDA graph's padding included, run SGLang's"
        " own top k and are counted as bypassed (reason rows)"
    )
