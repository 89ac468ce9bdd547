"""floor -> pool -> fill, weights and what is to be counted in one Triton launch: what a GPU runs in
decode.

Steps of more than 32 rows take two, of which the second finds the pool in what the first has
written; three where the pool knows the ranks. The knobs and the number of real rows are read from
device memory, so a captured CUDA graph follows them at its next replay."""

from __future__ import annotations

import torch
import triton

from oea_server.routing.contract import (
    SCORINGS,
    Router,
    Routing,
    check,
    kind_of,
    placement_of,
    width_of,
)
from oea_server.routing.counting import count, records_of
from oea_server.routing.device_tally import DeviceTally
from oea_server.routing.kernel import route_kernel
from oea_server.routing.knobs import Knobs, knobs_of
from oea_server.routing.launching import KEYS, ROWS_ALONE, find_pool, scratch_of, shape_of
from oea_server.routing.placement import Placement
from oea_server.routing.policy import Policy
from oea_server.routing.records import MAPPED, MAX_ROWS, SLOTS_KEPT, WRITTEN, unread
from oea_server.routing.tally import Tally

MAX_BATCH, MAX_EXPERTS, MAX_WIDTH = MAX_ROWS, 1024, SLOTS_KEPT
"""What the records have room for; and a lane's word has a bit for each of a row's experts that it
holds."""


def problem_of(batch: int, num_experts: int, width: int) -> str | None:
    """Why a batch cannot be routed by this launch, None if it can."""
    if batch > MAX_BATCH:
        return f"{batch} rows are above the fused launch's {MAX_BATCH}"
    if num_experts > MAX_EXPERTS:
        return f"{num_experts} experts are above the fused launch's {MAX_EXPERTS}"
    if width > MAX_WIDTH:
        return f"{width} experts per token are above the fused launch's {MAX_WIDTH}"
    return None


def route(
    router_logits: torch.Tensor,
    policy: Policy | Knobs,
    router: Router,
    *,
    num_real: int | torch.Tensor | None = None,
    layer: int = 0,
    row_k0: torch.Tensor | None = None,
    drafts: torch.Tensor | None = None,
    placement: Placement | None = None,
    tally: Tally | None = None,
) -> Routing:
    """See `oea_server.routing.route`: same arguments, same result.

    Raises:
        ValueError: also for a batch beyond `problem_of`.
    """
    check(router_logits, policy, router, row_k0, drafts)
    batch, num_experts = router_logits.shape
    width, device = width_of(policy, router.k), router_logits.device
    if problem := problem_of(batch, num_experts, width):
        raise ValueError(problem)
    if router_logits.dtype not in KEYS:
        router_logits = router_logits.float()
    if router_logits.stride(1) != 1:
        router_logits = router_logits.contiguous()
    knobs = (
        policy
        if isinstance(policy, Knobs)
        else knobs_of(policy, layer, router.k, num_experts, device)
    )
    place = placement_of(policy, placement, num_experts, device)
    book = unread(num_experts, device) if tally is None else records_of(tally, num_experts)
    row = 0 if tally is None else tally.row[layer]
    weights = torch.empty(batch, width, dtype=torch.float32, device=device)
    ids = torch.empty(batch, width, dtype=torch.int32, device=device)
    # of a tally that counts by step, the pool is written when it does
    later = tally is not None and tally.by_step
    pool = None if later else torch.empty(num_experts, dtype=torch.bool, device=device)
    shape = shape_of(router_logits, place)
    numbers = knobs.table[knobs.row[layer]]
    scratch = scratch_of(batch, shape, place, drafts is not None, device)
    where = (
        (None, 1, None) if place is None else (place.physical, place.physical.stride(0), place.home)
    )
    told = (
        *(
            router_logits,
            router_logits.stride(0),
            router.bias,
            router.expert_scale,
            weights,
            ids,
            pool,
            numbers,
        ),
        batch if num_real is None else num_real,
        *(row_k0, drafts),
        *(
            *scratch,
            *where,
            book.homes[row],
            book.rows[row],
            book.kept[row],
            book.words[row],
            book.heads[row],
        ),
        *(
            WRITTEN | batch | (0 if place is None else MAPPED),
            batch,
            shape.parts,
            layer,
            router.scale,
        ),
    )
    for stage in ("all",) if shape.parts == 1 else ("floors", "fills"):
        if stage == "fills" and place is not None:
            find_pool(numbers, scratch, place, book.homes[row], shape)
        route_kernel[(shape.parts,)](
            *told,
            K=router.k,
            WIDTH=width,
            SLOTS=triton.next_power_of_2(width),
            STAGE=stage,
            REAL=kind_of(num_real),
            **KEYS[router_logits.dtype],
            SCORING=SCORINGS.index(router.scoring),
            GROUPS=router.groups,
            TOP_GROUPS=router.top_groups,
            TOP2=router.group_score == "top2",
            GROUP_BINS=triton.next_power_of_2(router.groups),
            RENORMALIZE=router.renormalize,
            ZEROS=router.zero_experts,
            ROWS=shape.rows,
            **shape.constants,
            num_warps=shape.rows,
        )
    if tally is not None and tally.ends(layer):
        count(tally)
    return Routing(weights, ids, book.pools[row] if pool is None else pool)


def warm_up(
    dtype: torch.dtype,
    knobs: Knobs,
    router: Router,
    *,
    num_real: torch.Tensor | None = None,
    tally: Tally | None = None,
    placement: Placement | None = None,
    drafts: bool = False,
    asks: bool = False,
) -> None:
    """Compile what decode steps launch, which takes seconds where it was not kept, before there is
    traffic.

    One step without tokens of each size that is launched in another way, which is counted nowhere.
    These steps serve all layers, batches and policies, with and without a tally. With one, also the
    launches that count.

    Args:
        dtype: of the router's logits.
        knobs: those that the steps read; the launch is made on their device.
        num_real: as the steps have it, a mask of any length; 0-d int32 on that device, if not
            given.
        tally: the one that the steps have; it is not written.
        drafts: whether the steps verify some.
        asks: whether they have a `row_k0`.
        The rest: see `oea_server.routing.route`.
    """
    device, num_experts, layer = knobs.table.device, knobs.num_experts, next(iter(knobs.row))
    masked = num_real is not None and num_real.dtype == torch.bool
    nothing = torch.zeros(
        (), dtype=torch.int32 if num_real is None else num_real.dtype, device=device
    )
    like = None
    if tally is not None:
        like = Tally([layer], tally.num_experts, tally.ranks, device, tally.placed)
        like.by_step = tally.by_step
    for batch in (*ROWS_ALONE, ROWS_ALONE[-1] + 1):
        logits = torch.zeros(batch, num_experts, dtype=dtype, device=device)
        nobody = nothing.expand(batch).clone() if masked else nothing
        zeros = torch.zeros(batch, dtype=torch.int64, device=device)
        rows = {"drafts": zeros if drafts else None, "row_k0": zeros if asks else None}
        route(
            logits,
            knobs,
            router,
            num_real=nobody,
            **rows,
            layer=layer,
            tally=like,
            placement=placement,
        )
    if isinstance(tally, DeviceTally):
        tally.warm_up(router.k, nothing[None] if masked else nothing)
