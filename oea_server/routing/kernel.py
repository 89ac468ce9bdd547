"""The kernel of `oea_server.routing.fused`: its arguments are those of `route`, as pointers."""

from __future__ import annotations

import triton
import triton.language as tl

from oea_server.routing.keys import ID_BITS, ID_MASK, OFFSET
from oea_server.routing.tally import MASS_UNIT

ID_BITS_ = tl.constexpr(ID_BITS)
ID_MASK_ = tl.constexpr(ID_MASK)
OFFSET_ = tl.constexpr(OFFSET)
MASS_UNIT_ = tl.constexpr(MASS_UNIT)


@triton.jit(do_not_specialize=["num_real", "batch", "layer"])
def route_kernel(
    logits_ptr,
    stride,
    bias_ptr,
    weights_ptr,
    ids_ptr,
    pool_ptr,
    numbers_ptr,
    p_ptr,
    draw_ptr,
    num_real,
    batch,
    tally_ptr,
    counting_ptr,
    layer,
    N: tl.constexpr,
    K: tl.constexpr,
    WIDTH: tl.constexpr,
    SLOTS: tl.constexpr,
    COLUMNS: tl.constexpr,
    ROWS: tl.constexpr,
    OWN_ROWS: tl.constexpr,
    SIGMOID: tl.constexpr,
    RENORMALIZE: tl.constexpr,
    COUNT_ON_DEVICE: tl.constexpr,
    ALL_REAL: tl.constexpr,
    TABLE: tl.constexpr,
    TALLIED: tl.constexpr,
    RANKS: tl.constexpr,
    PLACED: tl.constexpr,
):
    if ALL_REAL:
        real = batch
    elif COUNT_ON_DEVICE:
        real = tl.load(num_real).to(tl.int32)
    else:
        real = num_real
    numbers = numbers_ptr + tl.minimum(real, TABLE) * 3
    floor, limit, reach = tl.load(numbers), tl.load(numbers + 1), tl.load(numbers + 2)
    p = tl.load(p_ptr)
    at_random, seed = tl.load(draw_ptr), tl.load(draw_ptr + 1)
    expert = tl.arange(0, COLUMNS)
    me, last = tl.program_id(0), tl.num_programs(0) - 1

    # Phase 1: the union of the floors over the real rows.
    pool = tl.zeros([COLUMNS], tl.int32)
    vanilla = tl.zeros([COLUMNS], tl.int32)
    guaranteed = 0
    for start in range(0, real, ROWS):
        row = start + tl.arange(0, ROWS)
        scores, own, keys = _read(
            logits_ptr, stride, bias_ptr, row, real, expert, at_random, seed, layer, N, SIGMOID, ROWS, COLUMNS
        )
        least = _floor(keys, scores, floor, p, SIGMOID, ROWS)
        holds = keys >= least[:, None]
        pool |= tl.max(holds.to(tl.int32), axis=0)
        if TALLIED and me == last:
            guaranteed += tl.sum(holds.to(tl.int32))
            least = _nth_best(own, K, ROWS)
            vanilla |= tl.max((own >= least[:, None]).to(tl.int32), axis=0)

    if me == last:
        tl.store(pool_ptr + expert, pool != 0, mask=expert < N)
        if TALLIED:
            once = tl.load(counting_ptr)
            BINS: tl.constexpr = TALLIED + 1
            if not PLACED:
                tl.atomic_add(tally_ptr + tl.sum(pool), once)
                if RANKS > 1:
                    share: tl.constexpr = N // RANKS
                    busiest = 0
                    for rank in tl.static_range(RANKS):
                        busiest = tl.maximum(busiest, tl.sum(tl.where(expert // share == rank, pool, 0)))
                    tl.atomic_add(tally_ptr + BINS + busiest, once)
            tl.atomic_add(tally_ptr + 2 * BINS + tl.sum(vanilla), once)
            sums = tally_ptr + 3 * BINS
            tl.atomic_add(sums, real * once)
            tl.atomic_add(sums + 2, -guaranteed * once)
    else:
        # Phase 2: each token's best experts of the pool, its own floor first among them.
        row = me * OWN_ROWS + tl.arange(0, OWN_ROWS)
        is_real = row < real
        scores, own, keys = _read(
            logits_ptr, stride, bias_ptr, row, real, expert, at_random, seed, layer, N, SIGMOID, OWN_ROWS, COLUMNS
        )
        is_open = (keys >= 0) & (pool != 0)[None, :]
        if reach < N:
            is_open &= keys >= _nth_largest(keys, reach, OWN_ROWS)[:, None]
        open_keys = tl.where(is_open, keys, -1)

        # any expert that is awake will do for a pad row, which has no best
        first = tl.min(tl.where(pool != 0, expert, COLUMNS), axis=0)
        spare = tl.where(is_real, N, tl.where(first == COLUMNS, 0, first))
        slot = tl.arange(0, SLOTS)[None, :]
        weights = tl.zeros([OWN_ROWS, SLOTS], tl.float32)
        ids = tl.zeros([OWN_ROWS, SLOTS], tl.int32)
        taken = tl.zeros([OWN_ROWS], tl.int32)
        below = tl.full([OWN_ROWS], 1 << 62, tl.int64)
        for j in tl.static_range(WIDTH):
            below = tl.max(tl.where(open_keys < below[:, None], open_keys, -1), axis=1)
            used = (below >= 0) & (j < limit)
            it = (~below & ID_MASK_).to(tl.int32)
            spare = tl.where(spare == N, it, spare)
            score = tl.sum(tl.where(open_keys == below[:, None], scores, 0.0), axis=1)
            weights = tl.where(slot == j, tl.where(used, score, 0.0)[:, None], weights)
            ids = tl.where(slot == j, tl.where(used, it, spare)[:, None], ids)
            taken += used.to(tl.int32)
        mass = tl.sum(weights, axis=1)
        if RENORMALIZE:
            weights = weights / (mass + 1e-20)[:, None]
        at = row[:, None] * WIDTH + slot
        inside = (row < batch)[:, None] & (slot < WIDTH)
        tl.store(weights_ptr + at, weights, mask=inside)
        tl.store(ids_ptr + at, ids, mask=inside)
        if TALLIED:
            once = tl.load(counting_ptr)
            least = _nth_best(own, K, OWN_ROWS)
            whole = tl.sum(tl.where(own >= least[:, None], scores, 0.0), axis=1)
            kept = tl.where(is_real, mass / (whole + 1e-20) * MASS_UNIT_ + 0.5, 0.0).to(tl.int64)
            sums = tally_ptr + 3 * (TALLIED + 1)
            tl.atomic_add(sums + 1, tl.sum(taken) * once)
            tl.atomic_add(sums + 2, tl.sum(taken) * once)
            tl.atomic_add(sums + 3, tl.sum(kept) * once)


@triton.jit
def _read(
    logits_ptr,
    stride,
    bias_ptr,
    row,
    real,
    expert,
    at_random,
    seed,
    layer,
    N: tl.constexpr,
    SIGMOID: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Scores, the router's own keys and the keys to choose by, [ROWS, COLUMNS]; keys of -1 outside."""
    inside = (row < real)[:, None] & (expert < N)[None, :]
    logits = tl.load(logits_ptr + row[:, None] * stride + expert[None, :], mask=inside, other=0.0).to(tl.float32)
    if SIGMOID:
        scores = 1.0 / (1.0 + tl.exp(-logits))
    else:
        top = tl.max(tl.where(inside, logits, float("-inf")), axis=1)
        top = tl.where(row < real, top, 0.0)
        scores = tl.exp(logits - top[:, None])
        scores = scores / (tl.sum(tl.where(inside, scores, 0.0), axis=1) + tl.where(row < real, 0.0, 1.0))[:, None]
    scores = tl.where(inside, scores, 0.0)
    preference = logits
    if bias_ptr is not None:
        preference = scores + tl.load(bias_ptr + expert, mask=expert < N, other=0.0)[None, :]
    low_bits = (~expert & ID_MASK_).to(tl.int64)[None, :]
    bits = preference.to(tl.int32, bitcast=True).to(tl.int64)
    ordered = tl.where(bits < 0, -(1 << 31) - bits, bits)  # negative floats run backwards; -0.0 is 0.0
    own = tl.where(inside, (ordered << ID_BITS_) + low_bits + OFFSET_, -1)
    keys = own
    if at_random != 0:
        x = logits.to(tl.int32, bitcast=True).to(tl.int64) & 0xFFFFFFFF
        place = row[:, None].to(tl.int64) * 65599 + expert[None, :]
        x = x + 0x9E3779B9 * (place + 1) + 0x85EBCA6B * (layer + 1).to(tl.int64) + 0xC2B2AE35 * (seed + 1)
        x = x & 0xFFFFFFFF
        x = ((x ^ (x >> 16)) * 0x85EBCA6B) & 0xFFFFFFFF
        x = ((x ^ (x >> 13)) * 0xC2B2AE35) & 0xFFFFFFFF
        x = (x ^ (x >> 16)) & 0x7FFFFFFF
        keys = tl.where(inside, (x << ID_BITS_) + low_bits, -1)
    return scores, own, keys


@triton.jit
def _floor(keys, scores, floor, p, SIGMOID: tl.constexpr, ROWS: tl.constexpr):
    """The least key that each row is guaranteed. [ROWS] int64; above every key in pad rows."""
    least = tl.full([ROWS], 1 << 62, tl.int64)
    if p < 1.0:
        mass = tl.zeros([ROWS], tl.float64)
        total = tl.full([ROWS], 1.0, tl.float64)
        if SIGMOID:
            total = tl.sum(scores.to(tl.float64), axis=1) + 1e-20
        for _ in range(floor):
            best = tl.max(tl.where(keys < least[:, None], keys, -1), axis=1)
            wanted = (mass / total < p) & (best >= 0)
            mass += tl.where(wanted, tl.sum(tl.where(keys == best[:, None], scores, 0.0), axis=1).to(tl.float64), 0.0)
            least = tl.where(wanted, best, least)
    else:
        least = _nth_best(keys, floor, ROWS)
    return least


@triton.jit
def _nth_best(keys, n, ROWS: tl.constexpr):
    """Each row's n-th best key, in n rounds. [ROWS] int64; above every key in pad rows."""
    least = tl.full([ROWS], 1 << 62, tl.int64)
    for _ in range(n):
        best = tl.max(tl.where(keys < least[:, None], keys, -1), axis=1)
        least = tl.where(best >= 0, best, least)
    return least


@triton.jit
def _nth_largest(keys, n, ROWS: tl.constexpr):
    """The same for a large n, bit by bit: the largest value that n keys reach. [ROWS] int64."""
    found = tl.zeros([ROWS], tl.int64)
    tried = tl.full([ROWS], 1 << 47, tl.int64)  # keys are below 1 << 48
    for _ in range(48):
        enough = tl.sum((keys >= (found | tried)[:, None]).to(tl.int32), axis=1) >= n
        found = tl.where(enough, found | tried, found)
        tried = tried >> 1
    return found
