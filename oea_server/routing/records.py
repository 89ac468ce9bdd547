"""What a launch writes down of a step, for one launch to count when all layers are through.

To count inside the layers would cost each of them a fifth of its time, for numbers that nobody
waits for."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch

MAX_ROWS = 2048
"""Speculation and attention data parallelism make so many of a step."""
LANES = 32
SLOTS_KEPT = 32
"""Experts per token, at most."""
OWN, GUARANTEED, TAKEN = 1 << 10, 1 << 11, 1 << 12
"""Bits of a record above an expert's id: there is an expert; the token's floor holds it; the token
takes one in this slot."""
WRITTEN, MAPPED, TOKENS = 1 << 15, 1 << 16, 1 << 17
"""Of a head, above its rows: that there is one; whether the layer's experts lie as `homes` says;
the tokens among its rows."""


class Records(NamedTuple):
    """One step of each layer.

    Args:
        heads: [layers] int32, rows, WRITTEN, MAPPED and tokens; 0 where there is nothing to count.
        words: [layers, 32] int32, the pool as `kernel_pools.packed` has it.
        pools: [layers, N] bool, the same once the step is counted.
        rows: [layers, MAX_ROWS, SLOTS_KEPT] int32, the experts of each token's own top k, with OWN,
            GUARANTEED and TAKEN; -1 in rows that are no token, or broken.
        kept: [layers, MAX_ROWS] int32, the share of its own top k's router mass that a token's
            experts hold, in units of 1 / MASS_UNIT.
        homes: [layers, N] int32, the physical expert that each is read from.
        last: [layers] int32, the heads of the step that was counted last, for what is known of it
            only afterwards.
    """

    heads: torch.Tensor
    words: torch.Tensor
    pools: torch.Tensor
    rows: torch.Tensor
    kept: torch.Tensor
    homes: torch.Tensor
    last: torch.Tensor


def records(layers: int, num_experts: int, device: torch.device, rows: int = MAX_ROWS) -> Records:
    """For so many layers. 270 KB each, for 2,048 rows."""
    return Records(
        torch.zeros(layers, dtype=torch.int32, device=device),
        torch.zeros(layers, LANES, dtype=torch.int32, device=device),
        torch.zeros(layers, num_experts, dtype=torch.bool, device=device),
        torch.zeros(layers, rows, SLOTS_KEPT, dtype=torch.int32, device=device),
        torch.zeros(layers, rows, dtype=torch.int32, device=device),
        torch.arange(num_experts, dtype=torch.int32, device=device).repeat(layers, 1),
        torch.zeros(layers, dtype=torch.int32, device=device),
    )


@cache
def unread(num_experts: int, device: torch.device) -> Records:
    """Of steps of which nothing is kept, one for all. Never freed, as captured graphs write to
    it."""
    return records(1, num_experts, device)


def columns_for(num_experts: int) -> int:
    """Experts, rounded up to what the lanes of a warp hold."""
    return max(LANES, 1 << (num_experts - 1).bit_length())
