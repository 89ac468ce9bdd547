"""Where a layer's counters lie in a `Tally`, for the kernels that add to them."""

from __future__ import annotations

import triton
import triton.language as tl

from oea_server.routing import tally

HISTOGRAMS = tl.constexpr(tally.HISTOGRAMS)
UNIQUE, BUSIEST = tl.constexpr(tally.UNIQUE), tl.constexpr(tally.BUSIEST)
VANILLA_UNIQUE, VANILLA_BUSIEST = tl.constexpr(tally.VANILLA), tl.constexpr(tally.VANILLA_BUSIEST)
TOKENS, ASSIGNMENTS = tl.constexpr(tally.TOKENS), tl.constexpr(tally.ASSIGNMENTS)
PIGGYBACKED, MASS_KEPT = tl.constexpr(tally.PIGGYBACKED), tl.constexpr(tally.MASS_KEPT)


@triton.jit
def add_step(layer_ptr, num_experts, HISTOGRAM: tl.constexpr, value, counting):
    """A step, into one of the layer's histograms; `counting` is 0 where steps are not to be
    counted."""
    tl.atomic_add(layer_ptr + HISTOGRAM * (num_experts + 1) + value, counting, sem="relaxed")


@triton.jit
def add_sum(layer_ptr, num_experts, SUM: tl.constexpr, amount, counting):
    """An amount, onto one of the layer's sums."""
    tl.atomic_add(
        layer_ptr + HISTOGRAMS * (num_experts + 1) + SUM, amount * counting, sem="relaxed"
    )
