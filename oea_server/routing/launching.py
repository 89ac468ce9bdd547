"""How a step is cut into programs, and what the kernel is compiled for."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton

from oea_server.routing.placement import Placement
from oea_server.routing.pool_kernel import pool_kernel
from oea_server.routing.records import LANES, columns_for

ROWS_ALONE = (16, 32)
"""Rows of the one program of a small step: as many warps."""

KEYS_ALONE = 16 * 1024
"""Sort keys of one program: beyond, each thread of 32 warps would have more of them than registers,
which are 64."""

VOTES_ALONE = 8 * 1024
"""Sort keys of one program where rows vote, with 8 bytes a key, that meet in shared memory: of it
some GPUs have 99 KiB."""

ROWS_OF_SEVERAL = 4
"""Rows of each program of a larger one: a warp for each of a multiprocessor's four schedulers."""

KEYS: dict[torch.dtype, dict[str, Any]] = {
    torch.bfloat16: {"WIDE": False, "INF": 0x7F80 << 16, "HALF": False},
    torch.float16: {"WIDE": False, "INF": 0x7C00 << 16, "HALF": True},
    torch.float32: {"WIDE": True, "INF": 0x7F800000, "HALF": False},
}
"""How logits become sort keys, and the key of infinity."""


class Shape(NamedTuple):
    """A launch.

    Args:
        rows: of a program, each of them a warp.
        parts: programs.
        columns: experts, rounded up to what a warp holds.
        constants: what the kernel is compiled for, beside the router.
    """

    rows: int
    parts: int
    columns: int
    constants: dict[str, Any]


def shape_of(router_logits: torch.Tensor, place: Placement | None) -> Shape:
    """How logits [B, N] are routed."""
    batch, num_experts = router_logits.shape
    columns = columns_for(num_experts)
    most = KEYS_ALONE if place is None else VOTES_ALONE
    alone = (rows for rows in ROWS_ALONE if batch <= rows and rows * columns <= most)
    rows = next(alone, ROWS_OF_SEVERAL)
    constants = {
        "N": num_experts,
        "COLUMNS": columns,
        **map_of(place, num_experts),
        "PDL": (early := starts_early()),
        **({"launch_pdl": True} if early else {}),
    }
    return Shape(rows, max(1, triton.cdiv(batch, rows)), columns, constants)


def map_of(place: Placement | None, num_experts: int) -> dict[str, Any]:
    """What the kernel is compiled for where a map is."""
    ranks, slots, copies = (
        (1, num_experts, 1)
        if place is None
        else (place.ranks, place.slots, place.physical.shape[1])
    )
    return {
        "RANKS": ranks,
        "RANK_BINS": triton.next_power_of_2(ranks),
        "SLOTS_OF_RANK": slots,
        "REPLICAS": copies,
        "COPIES": triton.next_power_of_2(copies),
        "SPARE": 0 if place is None else min(place.spare, num_experts),
    }


def starts_early() -> bool:
    """Whether a launch may start before the one before it has ended, and wait for it there.
    Programmatic dependent launch, as SGLang's own router has it: from Hopper on."""
    if not isinstance(pool_kernel, triton.JITFunction):
        return False  # interpreted
    target = triton.runtime.driver.active.get_current_target()
    return bool(target.backend == "cuda" and target.arch >= 90)


class Scratch(NamedTuple):
    """Tensors that one launch of a step hands to the next. Words of its programs' floors
    [parts, LANES] int32, and of each row's [B, LANES], votes [parts, columns] int64. None where
    there is nothing to hand over."""

    words: torch.Tensor | None
    held: torch.Tensor | None
    votes: torch.Tensor | None


def scratch_of(
    batch: int, shape: Shape, place: Placement | None, drafts: bool, device: torch.device
) -> Scratch:
    """For one step."""
    several = shape.parts > 1
    words = torch.empty(shape.parts, LANES, dtype=torch.int32, device=device) if several else None
    held = torch.empty(batch, LANES, dtype=torch.int32, device=device) if drafts else None
    ranked = several and place is not None
    votes = (
        torch.empty(shape.parts, shape.columns, dtype=torch.int64, device=device)
        if ranked
        else None
    )
    return Scratch(words, held, votes)


def find_pool(
    numbers: torch.Tensor, scratch: Scratch, place: Placement, homes: torch.Tensor, shape: Shape
) -> None:
    """Let one program find the pool of a step of several, on the ranks that `place` tells of."""
    pool_kernel[(1,)](
        numbers,
        scratch.words,
        scratch.votes,
        place.physical,
        place.physical.stride(0),
        place.home,
        homes,
        shape.parts,
        **shape.constants,
        num_warps=4,
    )
