"""The kernel of `oea_server.routing.fused`: its arguments are those of `route`, as pointers."""

from __future__ import annotations

import triton
import triton.language as tl

from oea_server.routing.keys import ID_BITS, ID_MASK, OFFSET
from oea_server.routing.knobs import FIELDS
from oea_server.routing.policy import POOLS
from oea_server.routing.tally import HISTOGRAMS, MASS_UNIT
from oea_server.routing.widen import VOTE

ID_BITS_ = tl.constexpr(ID_BITS)
ID_MASK_ = tl.constexpr(ID_MASK)
OFFSET_ = tl.constexpr(OFFSET)
MASS_UNIT_ = tl.constexpr(MASS_UNIT)
HISTOGRAMS_ = tl.constexpr(HISTOGRAMS)
VOTE_ = tl.constexpr(VOTE)
UNION = tl.constexpr(POOLS.index("union"))
FILL = tl.constexpr(POOLS.index("fill"))
BUDGET = tl.constexpr(POOLS.index("budget"))
ROW = tl.constexpr(len(FIELDS))
FLOOR, LIMIT, REACH, KIND, BUDGET_AT, DRAW, SEED, P = (
    tl.constexpr(FIELDS.index(field)) for field in ("floor", "limit", "reach", "kind", "budget", "draw", "seed", "p")
)


# Read one number at a time: nothing is gained by knowing that they lie at multiples of 16 bytes,
# which they do in some layers only, and one more kernel would have to be compiled.
PER_LAYER = ("numbers_ptr", "physical_ptr", "home_ptr", "bias_ptr")
# What differs between ranks is no constexpr: under TP all of them must choose alike, to the bit.
PER_RANK = ("tally_ptr", "counting_ptr", "tallied", "placed")


@triton.jit(do_not_specialize=["num_real", "batch", "layer", *PER_LAYER, *PER_RANK])
def route_kernel(
    logits_ptr,
    stride,
    bias_ptr,
    weights_ptr,
    ids_ptr,
    pool_ptr,
    numbers_ptr,
    physical_ptr,
    physical_stride,
    home_ptr,
    num_real,
    batch,
    tally_ptr,
    counting_ptr,
    tallied,
    placed,
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
    RANKS: tl.constexpr,
    POOL_RANKS: tl.constexpr,
    SLOTS_OF_RANK: tl.constexpr,
    REPLICAS: tl.constexpr,
    SPARE: tl.constexpr,
    RANK_BINS: tl.constexpr,
    POOL_RANK_BINS: tl.constexpr,
    COPIES: tl.constexpr,
):
    # bins and copies are powers of two, rounded up by the caller: SGLang replaces triton.next_power_of_2 by a function
    # that no kernel can call
    if ALL_REAL:
        real = batch
    elif COUNT_ON_DEVICE:
        real = tl.load(num_real).to(tl.int32)
    else:
        real = num_real
    real = tl.minimum(tl.maximum(real, 0), batch)
    numbers = numbers_ptr + tl.minimum(real, TABLE) * ROW
    floor, limit, reach = tl.load(numbers + FLOOR), tl.load(numbers + LIMIT), tl.load(numbers + REACH)
    kind, budget = tl.load(numbers + KIND), tl.load(numbers + BUDGET_AT)
    at_random, seed = tl.load(numbers + DRAW), tl.load(numbers + SEED).to(tl.int64)
    p = tl.load(numbers + P).to(tl.float32, bitcast=True)
    expert = tl.arange(0, COLUMNS)
    if POOL_RANKS == 1:
        kind = tl.where(kind == FILL, UNION, kind)  # no other rank has room
    me, last = tl.program_id(0), tl.num_programs(0) - 1

    # Phase 1: the union of the floors over the real rows.
    pool = tl.zeros([COLUMNS], tl.int32)
    vanilla = tl.zeros([COLUMNS], tl.int32)
    wanted = tl.zeros([COLUMNS], tl.int64)
    guaranteed = 0
    for start in range(0, real, ROWS):
        row = start + tl.arange(0, ROWS)
        raw, scores, own, keys, _ = _read(
            logits_ptr, stride, bias_ptr, row, real, expert, at_random, seed, layer, N, SIGMOID, ROWS, COLUMNS
        )
        if kind != UNION:
            wanted += tl.sum(_votes(keys, raw, tl.minimum(limit, reach), K, ROWS), axis=0)
        least = _floor(keys, scores, floor, p, SIGMOID, ROWS)
        holds = keys >= least[:, None]
        pool |= tl.max(holds.to(tl.int32), axis=0)
        if me == last:
            guaranteed += tl.sum(holds.to(tl.int32))
            least = _nth_best(own, K, ROWS)
            vanilla |= tl.max((own >= least[:, None]).to(tl.int32), axis=0)

    home = expert
    if physical_ptr is not None:
        home = _homes(
            pool,
            expert,
            physical_ptr,
            physical_stride,
            N,
            POOL_RANKS,
            SLOTS_OF_RANK,
            REPLICAS,
            SPARE,
            POOL_RANK_BINS,
            COPIES,
        )
    if kind != UNION:
        target = tl.where(kind == BUDGET, budget, 0)
        pool = _widen(pool, wanted, expert, home // SLOTS_OF_RANK, target, POOL_RANK_BINS, N)

    if me == last:
        if home_ptr is not None:
            tl.store(home_ptr + expert, home.to(tl.int32), mask=expert < N)
        tl.store(pool_ptr + expert, pool != 0, mask=expert < N)
        bins = tallied + 1
        once = tl.load(counting_ptr)
        loaded = tl.where(placed != 0, 0, once)  # under a map, others count what is loaded
        tl.atomic_add(tally_ptr + tl.sum(pool), loaded, sem="relaxed")
        tl.atomic_add(tally_ptr + 2 * bins + tl.sum(vanilla), once, sem="relaxed")
        if RANKS > 1:
            rank_of = home // (tallied // RANKS)
            busiest = tl.max(_loads(pool, rank_of, RANK_BINS))
            tl.atomic_add(tally_ptr + bins + busiest, loaded, sem="relaxed")
            busiest = tl.max(_loads(vanilla, rank_of, RANK_BINS))
            tl.atomic_add(tally_ptr + 3 * bins + busiest, once, sem="relaxed")
        sums = tally_ptr + HISTOGRAMS_ * bins
        tl.atomic_add(sums, real * once, sem="relaxed")
        tl.atomic_add(sums + 2, -guaranteed * once, sem="relaxed")
    else:
        # Phase 2: each token's best experts of the pool, its own floor first among them.
        row = me * OWN_ROWS + tl.arange(0, OWN_ROWS)
        _, scores, own, keys, broken = _read(
            logits_ptr, stride, bias_ptr, row, real, expert, at_random, seed, layer, N, SIGMOID, OWN_ROWS, COLUMNS
        )
        is_open = (keys >= 0) & (pool != 0)[None, :]
        if reach < N:
            is_open &= keys >= _nth_largest(keys, reach, OWN_ROWS)[:, None]
        open_keys = tl.where(is_open, keys, -1)

        # any expert that is awake will do for a row that has no best
        has_best = (row < real) & ~broken
        first = tl.min(tl.where(pool != 0, expert, COLUMNS), axis=0)
        spare = tl.where(has_best, N, tl.where(first == COLUMNS, 0, first))
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
        weights = tl.where(broken[:, None] & (slot < limit), float("nan"), weights)
        at = row[:, None] * WIDTH + slot
        inside = (row < batch)[:, None] & (slot < WIDTH)
        tl.store(weights_ptr + at, weights, mask=inside)
        tl.store(ids_ptr + at, ids, mask=inside)
        once = tl.load(counting_ptr)
        least = _nth_best(own, K, OWN_ROWS)
        whole = tl.sum(tl.where(own >= least[:, None], scores, 0.0), axis=1)
        kept = tl.minimum(mass / (whole + 1e-20), taken.to(tl.float32))
        kept = (kept * MASS_UNIT_ + 0.5).to(tl.int64)
        sums = tally_ptr + HISTOGRAMS_ * (tallied + 1)
        tl.atomic_add(sums + 1, tl.sum(taken) * once, sem="relaxed")
        tl.atomic_add(sums + 2, tl.sum(taken) * once, sem="relaxed")
        tl.atomic_add(sums + 3, tl.sum(kept) * once, sem="relaxed")


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
    """What the scores are proportional to, scores, the router's own keys and the keys to choose by, [ROWS, COLUMNS];
    keys of -1 outside. And which rows are broken, [ROWS] bool: they are outside."""
    inside = (row < real)[:, None] & (expert < N)[None, :]
    logits = tl.load(logits_ptr + row[:, None] * stride + expert[None, :], mask=inside, other=0.0).to(tl.float32)
    if SIGMOID:
        scores = 1.0 / (1.0 + tl.exp(-logits))
        raw = scores
        total = tl.sum(tl.where(inside, raw, 0.0), axis=1)
    else:
        top = tl.max(tl.where(inside, logits, float("-inf")), axis=1)
        top = tl.where(row < real, top, 0.0)
        raw = tl.exp(logits - top[:, None])
        total = tl.sum(tl.where(inside, raw, 0.0), axis=1)
        scores = raw / (total + tl.where(row < real, 0.0, 1.0))[:, None]
    broken = ~(total >= 0.0)  # NaN, as one of the scores is
    inside &= ~broken[:, None]
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
        x = (x ^ (x >> 16)) >> 8
        keys = tl.where(inside, (x << ID_BITS_) + low_bits, -1)
    return raw, scores, own, keys, broken


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
def _votes(keys, raw, could_take, K: tl.constexpr, ROWS: tl.constexpr):
    """Each row's votes for those of its own top k that it could take: see `widen.votes`. [ROWS, COLUMNS] int64."""
    least = tl.full([ROWS], 1 << 62, tl.int64)
    could = tl.full([ROWS], 1 << 62, tl.int64)
    mass = tl.zeros([ROWS], tl.float32)
    for rank in range(K):
        best = tl.max(tl.where(keys < least[:, None], keys, -1), axis=1)
        mass += tl.sum(tl.where((keys == best[:, None]) & (keys >= 0), raw, 0.0), axis=1)
        least = tl.where(best >= 0, best, least)
        could = tl.where((best >= 0) & (rank < could_take), best, could)
    share = tl.where(keys >= could[:, None], raw / (mass + 1e-20)[:, None], 0.0)
    square = share * share
    return (square * square * VOTE_).to(tl.int64)


@triton.jit
def _loads(experts, rank_of, BINS: tl.constexpr):
    """How many of a set are on each rank. [BINS] int32."""
    rank = tl.arange(0, BINS)
    return tl.sum(tl.where(rank[:, None] == rank_of[None, :], experts[None, :], 0), axis=1)


@triton.jit
def _homes(
    pool,
    expert,
    physical_ptr,
    stride,
    N: tl.constexpr,
    RANKS: tl.constexpr,
    SLOTS: tl.constexpr,
    REPLICAS: tl.constexpr,
    SPARE: tl.constexpr,
    BINS: tl.constexpr,
    COPIES: tl.constexpr,
):
    """Which physical expert each expert is read from: see `widen.homes`. [COLUMNS] int32."""
    physical: tl.constexpr = RANKS * SLOTS
    home = tl.load(physical_ptr + expert * stride, mask=expert < N, other=0).to(tl.int32)
    if SPARE > 0:
        second = tl.load(physical_ptr + expert * stride + 1, mask=expert < N, other=-1).to(tl.int32)
        left = second >= 0
        load = _loads(tl.where(left, 0, pool), home // SLOTS, BINS)
        rank = tl.arange(0, BINS)
        copy = tl.arange(0, COPIES)
        for _ in range(SPARE):
            turn = tl.min(tl.where(left, tl.where(pool != 0, expert, expert + N), 2 * N))
            mine = turn % N
            at = tl.load(physical_ptr + mine * stride + copy, mask=(copy < REPLICAS) & (turn < 2 * N), other=-1)
            at = at.to(tl.int32)
            there = tl.sum(tl.where(rank[:, None] == (at // SLOTS)[None, :], load[:, None], 0), axis=0)
            chosen = tl.min(tl.where(at >= 0, there * physical + at, 1 << 30)) % physical
            home = tl.where((expert == mine) & (turn < 2 * N), chosen, home)
            load += tl.where((rank == chosen // SLOTS) & (turn < 2 * N), 1, 0)
            left = left & (expert != mine)
    return home


@triton.jit
def _widen(pool, wanted, expert, rank_of, target, BINS: tl.constexpr, N: tl.constexpr):
    """The pool and each rank's most wanted experts, up to `target` or, if that is 0, to the busiest rank's count: see
    `widen.widen`. [COLUMNS] int32."""
    rank = tl.arange(0, BINS)
    here = (rank[:, None] == rank_of[None, :]) & (expert < N)[None, :]
    load = tl.sum(tl.where(here, pool[None, :], 0), axis=1)
    target = tl.where(target == 0, tl.max(load), target)
    low_bits = (~expert & ID_MASK_).to(tl.int64)
    keys = tl.where((wanted > 0) & (pool == 0), (wanted << ID_BITS_) | low_bits, -1)
    more = 1
    while more > 0:  # in each round every rank with room takes one
        best = tl.max(tl.where(here & (load < target)[:, None], keys[None, :], -1), axis=1)
        takes = here & (keys[None, :] == best[:, None]) & (best >= 0)[:, None]
        taken = tl.max(takes.to(tl.int32), axis=0)
        pool |= taken
        keys = tl.where(taken != 0, -1, keys)
        load += (best >= 0).to(tl.int32)
        more = tl.max(taken)
    return pool


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
