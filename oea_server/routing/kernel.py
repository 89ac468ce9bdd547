"""The kernel of `oea_server.routing.fused`: floor -> pool -> fill, a warp a row.

Up to 32 rows are one program, in which all warps meet over the pool. More rows are programs of a
few rows each, in two launches: the first writes down what each program's rows hold, the second
reads what all of them do. No program waits for another, and nothing has to be cleared between two
steps."""

from __future__ import annotations

import triton
import triton.language as tl

from oea_server.routing.kernel_floors import (
    EPSILON,
    held,
    logits_at,
    marked,
    number,
    reaching,
    total_of,
    undrafted,
)
from oea_server.routing.kernel_pools import (
    LANES,
    UNION,
    either,
    gathered,
    kind_at,
    on_ranks,
    packed,
    seen_by,
    unpacked,
)
from oea_server.routing.kernel_rows import (
    ABOVE_ALL,
    NOBODY,
    NONE,
    SIGMOID,
    SOFTMAX,
    columns_of,
    first_ranks,
    keys_of,
    of_best_groups,
    ordered,
    read,
    rounds,
    scores_of,
    shuffled,
    top,
    value_of,
)
from oea_server.routing.knobs import FIELDS, TABLE_BATCHES
from oea_server.routing.records import GUARANTEED, OWN, SLOTS_KEPT, TAKEN, TOKENS
from oea_server.routing.tally import MASS_UNIT
from oea_server.routing.widen import VOTE

MASS_UNIT_, VOTE_ = tl.constexpr(MASS_UNIT), tl.constexpr(VOTE)
GUARANTEED_, TAKEN_, OWN_ = tl.constexpr(GUARANTEED), tl.constexpr(TAKEN), tl.constexpr(OWN)
TOKENS_, SLOTS_KEPT_ = tl.constexpr(TOKENS), tl.constexpr(SLOTS_KEPT)
ROW, TABLE = tl.constexpr(len(FIELDS)), tl.constexpr(TABLE_BATCHES)
OF_TABLE = ("floor", "limit", "reach", "draft_floor", "draw", "seed", "p", "share", "mix")
FLOOR, LIMIT, REACH, DRAFT_FLOOR, DRAW, SEED, P, SHARE, MIX = (
    tl.constexpr(FIELDS.index(field)) for field in OF_TABLE
)
ALL, FLOORS, FILLS = tl.constexpr("all"), tl.constexpr("floors"), tl.constexpr("fills")

# Read one number at a time: nothing is gained by knowing that they lie at multiples of 16 bytes,
# which they do in some layers only, and one more kernel would have to be compiled.
NUMBERS = ("num_real", "batch", "parts", "layer", "head", "scale")
PER_LAYER = ("numbers_ptr", "bias_ptr", "expert_scale_ptr", "physical_ptr", "home_ptr")
RECORDS = ("homes_ptr", "records_ptr", "kept_ptr", "pools_ptr", "head_ptr")
POINTERS = ("pool_ptr", "row_k0_ptr", "drafts_ptr")


@triton.jit(do_not_specialize=[*NUMBERS, *PER_LAYER, *RECORDS, *POINTERS])
def route_kernel(
    logits_ptr,
    stride,
    bias_ptr,
    expert_scale_ptr,
    weights_ptr,
    ids_ptr,
    pool_ptr,
    numbers_ptr,
    num_real,
    row_k0_ptr,
    drafts_ptr,
    words_ptr,
    held_ptr,
    votes_ptr,
    physical_ptr,
    physical_stride,
    home_ptr,
    homes_ptr,
    records_ptr,
    kept_ptr,
    pools_ptr,
    head_ptr,
    head,
    batch,
    parts,
    layer,
    scale,
    N: tl.constexpr,
    K: tl.constexpr,
    WIDTH: tl.constexpr,
    SLOTS: tl.constexpr,
    COLUMNS: tl.constexpr,
    ROWS: tl.constexpr,
    STAGE: tl.constexpr,
    REAL: tl.constexpr,
    WIDE: tl.constexpr,
    INF: tl.constexpr,
    HALF: tl.constexpr,
    SCORING: tl.constexpr,
    GROUPS: tl.constexpr,
    TOP_GROUPS: tl.constexpr,
    TOP2: tl.constexpr,
    GROUP_BINS: tl.constexpr,
    RENORMALIZE: tl.constexpr,
    ZEROS: tl.constexpr,
    RANKS: tl.constexpr,
    RANK_BINS: tl.constexpr,
    SLOTS_OF_RANK: tl.constexpr,
    REPLICAS: tl.constexpr,
    COPIES: tl.constexpr,
    SPARE: tl.constexpr,
    PDL: tl.constexpr,
):
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    me = tl.program_id(0)
    row = me * ROWS + tl.arange(0, ROWS)
    slot = tl.arange(0, SLOTS)[None, :]
    expert = columns_of(COLUMNS)
    if REAL == "mask":
        real = marked(num_real, batch)
        token = tl.load(num_real + row, mask=row < batch, other=0) != 0
    else:
        real = tl.load(num_real).to(tl.int32) if REAL == "device" else num_real
        real = tl.minimum(tl.maximum(real, 0), batch)
        token = row < real
    requests = real
    if drafts_ptr is not None:  # the others are guesses
        requests = undrafted(drafts_ptr, num_real, real, batch, REAL)
    numbers = numbers_ptr + tl.minimum(requests, TABLE) * ROW
    floor, limit, reach = (
        tl.load(numbers + FLOOR),
        tl.load(numbers + LIMIT),
        tl.load(numbers + REACH),
    )

    # Each row's own top k, by the router's own order.
    BIASED: tl.constexpr = bias_ptr is not None
    WIDE_KEYS: tl.constexpr = WIDE or BIASED
    logits = read(logits_ptr, stride, row, token, N, ROWS, COLUMNS)
    bits = ordered(logits, WIDE)
    highest_bits = tl.max(keys_of(bits, expert, N, COLUMNS, WIDE), axis=1)
    highest = value_of(highest_bits, WIDE, HALF)[:, None]
    UNIT: tl.constexpr = 1 if WIDE else 1 << 16
    whole = (
        token
        & (tl.min(bits, axis=1) >= -INF)
        & (highest_bits < (INF + UNIT if SCORING == SIGMOID else INF))
    )
    if SCORING == SOFTMAX:
        whole &= highest_bits >= UNIT - INF
    if BIASED:
        choice = scores_of(logits.to(tl.float32), highest, SCORING)
        if SCORING == SOFTMAX:
            choice /= total_of(logits, highest, expert, N, SCORING)[:, None]
        choice += tl.load(bias_ptr + expert, mask=expert < N, other=0.0).to(tl.float32)[None, :]
        own_order = keys_of(ordered(choice, True), expert, N, COLUMNS, True)
    else:
        choice = logits.to(tl.float32)
        own_order = keys_of(bits, expert, N, COLUMNS, WIDE)
    if GROUPS > 1:
        if TOP2 and not BIASED:  # logits do not add up
            choice = scores_of(choice, highest, SCORING)
        choice = tl.where((expert < N)[None, :], choice, float("-inf"))
        member = of_best_groups(
            choice, expert, N // GROUPS, GROUPS, TOP_GROUPS, TOP2, GROUP_BINS, ROWS, COLUMNS
        )
        own_order = tl.where(member, own_order, NONE)
    own_keys, own = top(own_order, expert, K, ROWS, SLOTS, WIDE_KEYS)
    if BIASED:
        own_logits = logits_at(logits_ptr, stride, row, own, whole[:, None] & (slot < K))
    else:
        own_logits = value_of(own_keys, WIDE, HALF)
    own_scores = tl.where(slot < K, scores_of(own_logits, highest, SCORING), 0.0)
    mass_own = tl.where(whole, tl.sum(own_scores, axis=1), 0.0)  # a broken row's is NaN

    # Phase 1: every token is guaranteed its best experts.
    ASKS: tl.constexpr = row_k0_ptr is not None
    if ASKS:
        asks = tl.load(row_k0_ptr + row, mask=row < batch, other=0).to(tl.int32)
        asked = tl.abs(asks)
        if SLOTS > K:
            asked = tl.minimum(asked, K)
    at_random = tl.load(numbers + DRAW) != 0
    order, best_keys, best = own_order, own_keys, own
    if at_random:
        drawn = shuffled(logits, row, expert, layer, tl.load(numbers + SEED), WIDE_KEYS)
        order = keys_of(drawn, expert, N, COLUMNS, WIDE_KEYS)
        if GROUPS > 1:
            order = tl.where(member, order, NONE)
        if ASKS:
            order = tl.where((asked > 0)[:, None], own_order, order)
        best_keys, best = rounds(order, expert, floor, ROWS, SLOTS, WIDE_KEYS)
    limit_of_row, reach_of_row = limit, reach
    floor_of_row = tl.zeros([ROWS], tl.int32) + floor
    if drafts_ptr is not None:
        draft = tl.load(drafts_ptr + row, mask=row < batch, other=0) != 0
        floor_of_row = tl.where(
            draft, tl.minimum(floor, tl.load(numbers + DRAFT_FLOOR)), floor_of_row
        )
    if ASKS:
        floor_of_row = tl.where((asks > 0) & (floor < K), 0, floor_of_row)
        limit_of_row, reach_of_row = tl.maximum(limit, asked)[:, None], tl.maximum(reach, asked)
        if WIDTH > K:
            limit_of_row = tl.where(asked[:, None] >= K, K, limit_of_row)
    guaranteed = tl.broadcast_to(slot < floor_of_row[:, None], [ROWS, SLOTS])
    p, share = number(numbers + P), number(numbers + SHARE)
    if p < 1.0:
        total = total_of(logits, highest, expert, N, SCORING)
        guaranteed &= slot < reaching(own_scores, total, p, floor, ROWS, SCORING)[:, None]
    if share > 0.0:
        guaranteed &= (own_scores > share * mass_own[:, None]) | (slot == 0)
    if ASKS:
        guaranteed |= slot < asked[:, None]
    guaranteed &= whole[:, None]
    has_own = slot < K
    if ZEROS > 0:
        has_own &= own < N - ZEROS
    record = tl.where(has_own, own | OWN_, 0) | guaranteed.to(tl.int32) * GUARANTEED_
    holds = held(
        order, expert, best_keys, best, guaranteed, BIASED, WIDE_KEYS, K, ROWS, COLUMNS, SLOTS
    )
    if ZEROS > 0:  # they are awake, and load nothing
        holds &= (expert < N - ZEROS)[None, :]

    # The pool is the union of the floors, and what the ranks have room for beside it.
    lane = tl.arange(0, LANES)
    WIDENED: tl.constexpr = physical_ptr is not None
    if WIDENED:
        kind = UNION
        if drafts_ptr is None:
            kind = kind_at(numbers, RANKS)
        could = (slot < tl.minimum(tl.minimum(limit, reach), K)) & whole[:, None] & (kind != UNION)
    if STAGE != FILLS:
        words = tl.reduce(packed(holds, ROWS, COLUMNS), 0, either)
        if WIDENED:
            might = held(
                order, expert, best_keys, best, could, BIASED, WIDE_KEYS, K, ROWS, COLUMNS, SLOTS
            )
            if ZEROS > 0:
                might &= (expert < N - ZEROS)[None, :]
            wanted = tl.zeros([COLUMNS], tl.int64)
            if kind != UNION:
                raw = scores_of(logits.to(tl.float32), highest, SCORING)
                part = tl.where(might, raw / (mass_own + EPSILON)[:, None], 0.0)
                wanted = tl.sum((part * part * (part * part) * VOTE_).to(tl.int64), axis=0)
        if drafts_ptr is not None:
            at = row[:, None] * LANES + lane[None, :]
            tl.store(held_ptr + at, packed(holds, ROWS, COLUMNS), mask=(row < batch)[:, None])
    if STAGE == FLOORS:
        tl.store(words_ptr + me * LANES + lane, words)
        if WIDENED:
            tl.store(votes_ptr + me * COLUMNS + tl.arange(0, COLUMNS), wanted)
    else:
        if STAGE == FILLS:
            words = gathered(words_ptr, parts)
        elif WIDENED:
            words = on_ranks(
                words,
                wanted,
                kind,
                numbers,
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
        loaded = unpacked(words[None, :], 1, COLUMNS)
        awake = loaded
        if ZEROS > 0:
            zero = ((expert >= N - ZEROS) & (expert < N))[None, :]
            awake |= zero
        first = tl.min(tl.where(awake, expert[None, :], NOBODY), axis=1)

        # Phase 2: down its own ranking, a token adds experts that are awake anyway.
        if drafts_ptr is not None:
            if STAGE == ALL:
                tl.debug_barrier()  # what other warps have written down is read
            near = awake & unpacked(seen_by(held_ptr, drafts_ptr, row, batch, ROWS), ROWS, COLUMNS)
            if ZEROS > 0:
                near |= zero
        else:
            near = awake
        open_keys = tl.where(near, order, NONE)
        if reach < N:
            open_keys = tl.where(
                first_ranks(order, expert, reach_of_row, WIDE_KEYS, COLUMNS), open_keys, NONE
            )
        chosen_keys, chosen = top(open_keys, expert, WIDTH, ROWS, SLOTS, WIDE_KEYS)
        # a number, as predicates are few
        bar = tl.where((slot < limit_of_row) & whole[:, None], NONE, ABOVE_ALL)
        used = chosen_keys > bar
        if BIASED:
            chosen_logits = logits_at(logits_ptr, stride, row, chosen, used)
        else:
            chosen_logits = value_of(chosen_keys, WIDE, HALF)
            if at_random:
                chosen_logits = logits_at(logits_ptr, stride, row, chosen, used)
        weights = tl.where(used, scores_of(chosen_logits, highest, SCORING), 0.0)
        mass = tl.sum(weights, axis=1)
        if RENORMALIZE:
            mix = number(numbers + MIX)
            if ASKS:
                mix = tl.where(asked >= K, 1.0, mix)
            weights /= (mix * mass + (1.0 - mix) * mass_own + EPSILON)[:, None]
        elif SCORING == SOFTMAX:
            weights /= tl.where(whole, total_of(logits, highest, expert, N, SCORING), 1.0)[:, None]
        if expert_scale_ptr is not None:
            weights *= tl.load(expert_scale_ptr + chosen, mask=used, other=0.0).to(tl.float32)
        weights = tl.where(
            (token & ~whole)[:, None] & (slot < limit_of_row), float("nan"), weights * scale
        )

        # an unused slot wakes nobody; any expert that is awake will do for a row that has no best
        if WIDE_KEYS:
            own_best = tl.max(tl.where(slot == 0, chosen, 0), axis=1)
        else:
            own_best = ~tl.max(open_keys, axis=1) & NOBODY
        spare = tl.where(whole, own_best, tl.where(first == NOBODY, 0, first))
        at = row[:, None] * WIDTH + slot
        inside = (row < batch)[:, None] & (slot < WIDTH)
        tl.store(weights_ptr + at, weights, mask=inside)
        tl.store(ids_ptr + at, tl.where(used, chosen, spare[:, None]), mask=inside)
        if me == 0:
            if pool_ptr is not None:
                tl.store(pool_ptr + expert, tl.reshape(loaded, [COLUMNS]), mask=expert < N)
            tl.store(pools_ptr + lane, words)
            tl.store(head_ptr, head | real * TOKENS_)

        # What is counted, once a step and off this path: see `records`.
        kept = mass / (mass_own + EPSILON)
        if BIASED:  # what weighs next to nothing can be preferred then
            kept = tl.minimum(kept, tl.sum(used.to(tl.float32), axis=1))
        kept = tl.where(whole, kept * MASS_UNIT_ + 0.5, 0.0).to(tl.int32)
        record = tl.where(whole[:, None], record | used.to(tl.int32) * TAKEN_, -1)
        tl.store(
            records_ptr + row[:, None] * SLOTS_KEPT_ + slot, record, mask=(row < batch)[:, None]
        )
        tl.store(kept_ptr + row, kept, mask=row < batch)
