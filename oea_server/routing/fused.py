"""floor -> pool -> fill, weights and tally in one Triton launch: what a GPU runs in decode.

Every program finds the whole pool by itself (phase 1 over all rows, which are few), then fills its
own rows; one more program counts. So no program waits for another, and one launch is enough.
The knobs and the number of real rows are read from device memory, so a captured CUDA graph follows
them at its next replay.
"""

from __future__ import annotations

import torch
import triton

from oea_server.routing.contract import Router, Routing, check, placement_of, width_of
from oea_server.routing.device_tally import DeviceTally
from oea_server.routing.kernel import route_kernel
from oea_server.routing.knobs import TABLE_BATCHES, Knobs, knobs_of
from oea_server.routing.placement import Placement
from oea_server.routing.policy import Policy
from oea_server.routing.tally import Tally, uncounted

MAX_BATCH, MAX_EXPERTS, MAX_WIDTH = 128, 512, 16
"""Beyond these the redundant phase 1 would take longer than the launches it saves."""

ROWS_PER_PROGRAM = 4
"""One warp a row: the rounds of a row's top-k then need no shared memory."""

TILE = 2048
"""Elements of the logits that phase 1 holds at once: 16 per thread."""


def problem_of(batch: int, num_experts: int, width: int) -> str | None:
    """Why a batch cannot be routed by this launch, None if it can."""
    if batch > MAX_BATCH:
        return f"{batch} rows are above the fused launch's {MAX_BATCH}"
    if num_experts > MAX_EXPERTS:
        return f"{num_experts} experts are above the fused launch's {MAX_EXPERTS}"
    if width > MAX_WIDTH:
        return f"{width} experts per token are above the fused launch's {MAX_WIDTH}"
    return None


def not_yet(
    policy: Policy | Knobs,
    router: Router,
    num_real: int | torch.Tensor | None,
    row_k0: torch.Tensor | None,
    requests: torch.Tensor | None,
) -> str | None:
    """What this launch does not know of yet, None if it knows all that is asked."""
    asked = {
        "groups": router.groups > 1,
        "scoring=sqrtsoftplus": router.scoring == "sqrtsoftplus",
        "scale": router.scale != 1.0,
        "share": isinstance(policy, Policy) and policy.share is not None,
        "mix": isinstance(policy, Policy) and policy.mix != 1.0,
        "row_k0": row_k0 is not None,
        "requests": requests is not None,
        "mask of rows": isinstance(num_real, torch.Tensor) and num_real.dtype == torch.bool,
    }
    return next((f"the fused launch knows no {name} yet" for name, given in asked.items() if given), None)


def route(
    router_logits: torch.Tensor,
    policy: Policy | Knobs,
    router: Router,
    *,
    num_real: int | torch.Tensor | None = None,
    layer: int = 0,
    row_k0: torch.Tensor | None = None,
    requests: torch.Tensor | None = None,
    placement: Placement | None = None,
    tally: Tally | None = None,
) -> Routing:
    """See `oea_server.routing.route`: same arguments, same result.

    Raises:
        ValueError: also for a batch beyond `problem_of`, and for what it does not know of yet.
    """
    check(router_logits, policy, router, row_k0, requests)
    batch, num_experts = router_logits.shape
    k = router.k
    if problem := not_yet(policy, router, num_real, row_k0, requests):
        raise ValueError(problem)
    width, device = width_of(policy, k), router_logits.device
    if problem := problem_of(batch, num_experts, width):
        raise ValueError(problem)
    if router_logits.stride(1) != 1:
        router_logits = router_logits.contiguous()
    knobs = policy if isinstance(policy, Knobs) else knobs_of(policy, layer, k, num_experts, device)
    weights = torch.empty(batch, width, dtype=torch.float32, device=device)
    ids = torch.empty(batch, width, dtype=torch.int32, device=device)
    pool = torch.empty(num_experts, dtype=torch.bool, device=device)
    # on one rank the launch needs no map
    place = placement if isinstance(policy, Knobs) else placement_of(policy, placement, num_experts, device)
    row = 0 if tally is None else tally.row[layer]
    if tally is None:  # what counts nothing runs the same kernel: under TP all ranks must choose alike
        physical = num_experts if place is None else place.ranks * place.slots
        tally = uncounted(physical, 1 if place is None else place.ranks, device)
    columns = triton.next_power_of_2(num_experts)
    route_kernel[(triton.cdiv(batch, ROWS_PER_PROGRAM) + 1,)](
        router_logits,
        router_logits.stride(0),
        router.bias,
        weights,
        ids,
        pool,
        knobs.table[knobs.row[layer]],
        None if place is None else place.physical,
        1 if place is None else place.physical.stride(0),
        None if place is None else place.home,
        num_real,
        batch,
        tally.data[row],
        tally.counting,
        tally.num_experts,
        int(tally.placed),
        layer,
        N=num_experts,
        K=k,
        WIDTH=width,
        SLOTS=triton.next_power_of_2(width),
        COLUMNS=columns,
        ROWS=max(ROWS_PER_PROGRAM, TILE // columns),
        OWN_ROWS=ROWS_PER_PROGRAM,
        SIGMOID=router.scoring == "sigmoid",
        RENORMALIZE=router.renormalize,
        COUNT_ON_DEVICE=isinstance(num_real, torch.Tensor),
        ALL_REAL=num_real is None,
        TABLE=TABLE_BATCHES,
        RANKS=1 if tally.placed and place is None else tally.ranks,
        POOL_RANKS=1 if place is None else place.ranks,
        SLOTS_OF_RANK=num_experts if place is None else place.slots,
        REPLICAS=1 if place is None else place.physical.shape[1],
        SPARE=0 if place is None else min(place.spare, num_experts),
        RANK_BINS=triton.next_power_of_2(1 if tally.placed and place is None else tally.ranks),
        POOL_RANK_BINS=triton.next_power_of_2(1 if place is None else place.ranks),
        COPIES=triton.next_power_of_2(1 if place is None else place.physical.shape[1]),
        num_warps=4,
    )
    return Routing(weights, ids, pool)


def warm_up(
    dtype: torch.dtype,
    knobs: Knobs,
    router: Router,
    *,
    num_real: torch.Tensor | None = None,
    tally: Tally | None = None,
    placement: Placement | None = None,
) -> None:
    """Compile what decode steps launch, which takes seconds where it was not kept, before there is traffic.

    One launch for a step without tokens, which is counted nowhere: it serves all layers, batches and policies, with
    and without a tally. With one on a GPU, also the launch that counts steps of the model's own top k.

    Args:
        dtype: of the router's logits.
        knobs: those that the steps read; the launch is made on their device.
        num_real: as the steps have it; 0-d int32 on that device, if not given.
        tally: the one that the steps have; it is not written.
        The rest: see `oea_server.routing.route`.
    """
    device, num_experts, layer = knobs.table.device, knobs.num_experts, next(iter(knobs.row))
    nothing = torch.zeros((), dtype=torch.int32 if num_real is None else num_real.dtype, device=device)
    like = None if tally is None else Tally([layer], tally.num_experts, tally.ranks, device, tally.placed)
    logits = torch.zeros(1, num_experts, dtype=dtype, device=device)
    route(logits, knobs, router, num_real=nothing, layer=layer, tally=like, placement=placement)
    if isinstance(tally, DeviceTally):
        tally.warm_up(router.k, nothing)
