"""The launch between the two of a step of many rows, where the pool knows the ranks."""

from __future__ import annotations

import triton
import triton.language as tl

from oea_server.routing.kernel_pools import LANES, gathered, homes, packed, unpacked, widen
from oea_server.routing.kernel_rows import columns_of
from oea_server.routing.knobs import FIELDS
from oea_server.routing.policy import POOLS

FILL, BUDGET = tl.constexpr(POOLS.index("fill")), tl.constexpr(POOLS.index("budget"))
KIND, BUDGET_AT = tl.constexpr(FIELDS.index("kind")), tl.constexpr(FIELDS.index("budget"))


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
    """Between the two launches of a step of many rows, where a map is: one program finds the pool for all others."""
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    expert, place, lane = columns_of(COLUMNS), tl.arange(0, COLUMNS), tl.arange(0, LANES)
    words = gathered(words_ptr, parts)
    pool = tl.reshape(unpacked(words[None, :], 1, COLUMNS), [COLUMNS]).to(tl.int32)
    home = homes(
        pool, expert, physical_ptr, physical_stride, N, RANKS, SLOTS_OF_RANK, REPLICAS, SPARE, RANK_BINS, COPIES
    )
    tl.store(home_ptr + expert, home, mask=expert < N)
    tl.store(homes_ptr + expert, home, mask=expert < N)
    kind = tl.load(numbers_ptr + KIND)
    if kind == BUDGET or (kind == FILL and RANKS > 1):
        wanted = tl.zeros([COLUMNS], tl.int64)
        for part in range(0, parts):
            wanted += tl.load(votes_ptr + part * COLUMNS + place)
        target = tl.where(kind == BUDGET, tl.load(numbers_ptr + BUDGET_AT), 0)
        pool = widen(pool, wanted, expert, home // SLOTS_OF_RANK, target, RANK_BINS, N)
        words = tl.reshape(packed((pool != 0)[None, :], 1, COLUMNS), [LANES])
    tl.store(words_ptr + lane, words)
