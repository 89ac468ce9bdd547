"""The kernel of `oea_server.routing.counting.count_kept`: what rejected drafts woke, by one program
a layer."""

from __future__ import annotations

import triton
import triton.language as tl

from oea_server.routing.kernel_pools import LANES, unpacked
from oea_server.routing.step_kernel import AT_ONCE, GUARANTEED_, OWN_, SLOTS_KEPT_
from oea_server.routing.tally import ACCEPTED_ROWS, REJECTED_EXPERTS

ACCEPTED_ROWS_, REJECTED_EXPERTS_ = tl.constexpr(ACCEPTED_ROWS), tl.constexpr(REJECTED_EXPERTS)


@triton.jit(do_not_specialize=["kept", "tally_stride", "counting_ptr", "capacity"])
def kept_kernel(
    last_ptr,
    words_ptr,
    rows_ptr,
    kept_ptr,
    kept,
    tally_ptr,
    tally_stride,
    counting_ptr,
    capacity,
    COLUMNS: tl.constexpr,
):
    layer = tl.program_id(0)
    written = tl.load(last_ptr + layer) != 0
    counting = tl.load(counting_ptr)
    slot = tl.arange(0, SLOTS_KEPT_)[None, :]
    times = tl.zeros([COLUMNS], tl.int32)
    rows = 0
    for start in range(0, kept, AT_ONCE):
        at = start + tl.arange(0, AT_ONCE)
        row = tl.load(kept_ptr + at, mask=at < kept, other=-1)
        rows += tl.sum((row >= 0).to(tl.int32))
        place = (layer * capacity + row)[:, None] * SLOTS_KEPT_ + slot
        found = tl.load(rows_ptr + place, mask=(row >= 0)[:, None] & written, other=0)
        found = tl.where(found < 0, 0, found)  # a broken row has no floor
        flat = tl.reshape(found, [AT_ONCE * SLOTS_KEPT_])
        times += tl.histogram(
            flat & (OWN_ - 1), COLUMNS, mask=((flat & OWN_) != 0) & ((flat & GUARANTEED_) != 0)
        )
    tally = tally_ptr + layer * tally_stride
    tl.atomic_add(tally + ACCEPTED_ROWS_, rows * counting, sem="relaxed")
    if written:
        words = tl.load(words_ptr + layer * LANES + tl.arange(0, LANES))
        pool = tl.reshape(unpacked(words[None, :], 1, COLUMNS), [COLUMNS]).to(tl.int32)
        # the pool of drafts is the union of the floors, so those of the kept rows are in it
        others = tl.sum(pool) - tl.sum((times > 0).to(tl.int32))
        tl.atomic_add(tally + REJECTED_EXPERTS_, others * counting, sem="relaxed")
