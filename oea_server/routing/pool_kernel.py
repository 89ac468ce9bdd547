"""The launch between the two of a step of many rows, where the pool knows the ranks."""

from __future__ import annotations

import triton
import triton.language as tl

from oea_server.routing.kernel_pools import LANES, UNION, gathered, kind_at, on_ranks
from oea_server.routing.kernel_rows import columns_of


@triton.jit(do_not_specialize=["numbers_ptr", "parts", "physical_ptr", "home_ptr", "homes_ptr"])
def pool_kernel(
    numbers_ptr,
    words_ptr,
    votes_ptr,
    physical_ptr,
    physical_stride,
    home_ptr,
    homes_ptr,
    parts,
    N: tl.constexpr,
    COLUMNS: tl.constexpr,
    RANKS: tl.constexpr,
    SLOTS_OF_RANK: tl.constexpr,
    REPLICAS: tl.constexpr,
    SPARE: tl.constexpr,
    RANK_BINS: tl.constexpr,
    COPIES: tl.constexpr,
    PDL: tl.constexpr,
):
    """Between the two launches of a step of many rows, where a map is: one program finds the pool
    for all others."""
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    expert, place, lane = columns_of(COLUMNS), tl.arange(0, COLUMNS), tl.arange(0, LANES)
    kind = kind_at(numbers_ptr, RANKS)
    wanted = tl.zeros([COLUMNS], tl.int64)
    if kind != UNION:
        for part in range(0, parts):
            wanted += tl.load(votes_ptr + part * COLUMNS + place)
    words = on_ranks(
        gathered(words_ptr, parts),
        wanted,
        kind,
        numbers_ptr,
        expert,
        physical_ptr,
        physical_stride,
        home_ptr,
        homes_ptr,
        N,
        COLUMNS,
        RANKS,
        SLOTS_OF_RANK,
        REPLICAS,
        SPARE,
        RANK_BINS,
        COPIES,
    )
    tl.store(words_ptr + lane, words)
