"""The launch that counts a step of all layers from what their launches have written down."""

from __future__ import annotations

import torch
import triton

from oea_server.routing.kept_kernel import kept_kernel
from oea_server.routing.records import MAX_ROWS, Records, columns_for, records
from oea_server.routing.step_kernel import step_kernel
from oea_server.routing.tally import Tally


def records_of(tally: Tally, num_experts: int) -> Records:
    """Where the launches of a tally's layers write; made once."""
    if tally.records is None:
        tally.records = records(len(tally.row), num_experts, tally.data.device)
    return tally.records


def count(tally: Tally) -> None:
    """Count what is written down in a tally's records, and forget it."""
    book = tally.records
    if book is None:
        return
    num_experts = book.pools.shape[1]
    step_kernel[(len(tally.row),)](
        *(book.heads, book.words, book.pools, book.rows, book.kept, book.homes, book.last),
        *(
            tally.counted,
            tally.data.stride(0),
            tally.counting,
            tally.num_experts,
            int(tally.placed),
            MAX_ROWS,
        ),
        N=num_experts,
        COLUMNS=columns_for(num_experts),
        RANKS=tally.ranks,
        RANK_BINS=triton.next_power_of_2(tally.ranks),
        num_warps=4,
    )


def count_kept(tally: Tally, kept: torch.Tensor) -> None:
    """Count which rows of the step that was counted last were kept, and the experts that only the
    others woke.

    Args:
        kept: [requests, *] int32 on the tally's device, rows; -1 for nothing.
    """
    book = tally.records
    if book is None:
        return
    kept = kept.contiguous()
    kept_kernel[(len(tally.row),)](
        *(book.last, book.words, book.rows, kept, kept.numel()),
        *(tally.verified, tally.data.stride(0), tally.counting, MAX_ROWS),
        COLUMNS=columns_for(book.pools.shape[1]),
        num_warps=4,
    )
