"""floor -> pool -> fill in vectorised torch, on any device and of many steps at once.

Nothing here waits for the device, allocates by a device value or branches on one: the same code
runs under CUDA graph capture, where the number of real rows is only known to the device.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from oea_server.routing import widen
from oea_server.routing.contract import (
    RENORMALIZE_EPSILON,
    Router,
    Routing,
    Scoring,
    check,
    is_union,
    placement_of,
    real_rows,
    width_of,
)
from oea_server.routing.knobs import Knobs, knobs_of
from oea_server.routing.placement import Placement
from oea_server.routing.policy import UNION, Numbers, Policy, Room
from oea_server.routing.ranking import arange, expert_of, random_keys, sort_keys
from oea_server.routing.tally import Tally

DEEPEST = 1 << 30
"""Deeper than any guess."""


class Rows(NamedTuple):
    """What differs by row of a step.

    Args:
        real: [..., B, 1] bool, tokens that are not broken.
        k0: [B, 1] integers in -k..k, what a row asks for itself, 0 where it does not: see
            `oea_server.routing.route`; None if none does.
        drafts: [B, 1] int64, 0 for tokens, j for the j-th guess in a chain, negative for one in a
            tree (`oea_server.routing.route`); None if all are tokens.
    """

    real: torch.Tensor
    k0: torch.Tensor | None = None
    drafts: torch.Tensor | None = None

    def limit(self, numbers: Numbers, k: int) -> torch.Tensor | int:
        """Experts that each row holds at most, [B, 1]; or the policy's number."""
        if self.k0 is None:
            return numbers.limit
        most = torch.as_tensor(numbers.limit, device=self.k0.device)
        return torch.where(self.k0.abs() == k, k, torch.maximum(most, self.k0.abs()))


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
    """See `oea_server.routing.route`: same arguments, same result. Leading dimensions of the logits
    are steps, each routed by itself; everything that comes back has them too. One step only with a
    tally and for random draws."""
    batch, num_experts = router_logits.shape[-2:]
    check(router_logits, policy, router, row_k0, drafts)
    k, device = router.k, router_logits.device

    logits = router_logits.float()
    scores = scores_of(logits, router.scoring)
    own = own_keys(logits, scores, router)
    keys = (
        own
        if isinstance(policy, Policy) and policy.name != "random"
        else drawn(own, router_logits, policy, layer)
    )
    if row_k0 is not None and keys is not own:
        keys = torch.where(row_k0[:, None] != 0, own, keys)
    is_token = real_rows(batch, num_real, device)[:, None]
    numbers, room = numbers_of(policy, layer, router, num_experts, num_real, is_token, drafts)
    # softmax spreads a NaN over its row, and a sum meets it wherever it is
    sample = scores[..., :1] if router.scoring == "softmax" else scores.sum(dim=-1, keepdim=True)
    rows = Rows(
        is_token & sample.isfinite(),  # a broken row is a token, and else a pad row
        None if row_k0 is None else row_k0.clamp(-k, k)[:, None],
        None if drafts is None else drafts.long()[:, None],
    )

    best = keys.topk(k, dim=-1).values
    vanilla = expert_of(best if keys is own else own.topk(k, dim=-1).values)
    mass_own = widen.in_order(scores.gather(-1, vanilla))[..., None].where(rows.real, 0.0)
    guaranteed = floor(best, scores, mass_own, numbers, router.scoring, rows)
    loaded = arange(num_experts, device) < num_experts - router.zero_experts
    pool = pool_of(keys, best, guaranteed) & loaded
    place = placement_of(policy, placement, num_experts, device)
    if place is not None:
        home = widen.homes(pool, place)
        if home.dim() == 1:
            place.home.copy_(home)
        if not is_union(room, place.ranks):
            could = widen.could_take(numbers, room, place.ranks, k, device) & rows.real
            values = (
                (logits - logits.amax(dim=-1, keepdim=True)).exp()
                if router.scoring == "softmax"
                else scores
            )
            wanted = widen.votes(
                best, values.gather(-1, expert_of(best)), could, num_experts
            ).where(loaded, 0)
            pool = widen.widen(pool, wanted, home, place, room)
    awake = pool | ~loaded
    open_to = awake[..., None, :]
    if rows.drafts is not None:
        open_to = open_to & (seen_from(best, guaranteed, rows.drafts, num_experts) | ~loaded)
    limit = rows.limit(numbers, k)
    chosen, used = fill(keys, open_to, numbers._replace(limit=limit), width_of(policy, k), rows)  # type: ignore[arg-type]
    mix = numbers.mix if rows.k0 is None else torch.where(rows.k0.abs() == k, 1.0, numbers.mix)
    routing, mass = weigh(chosen, used, awake, scores, mass_own, router, mix, rows.real)
    spoilt = is_token & ~rows.real & (arange(used.shape[-1], device) < limit)
    routing = routing._replace(weights=routing.weights.masked_fill(spoilt, torch.nan), pool=pool)
    if tally is not None:
        kept = mass / (mass_own[..., 0] + RENORMALIZE_EPSILON)
        real = num_experts - router.zero_experts
        vanilla = vanilla.where(rows.real & (vanilla < real), -1)
        home_of = None if place is None else place.home[:real]
        tally.add_routed(
            layer, pool[..., :real], vanilla, guaranteed, used, kept, is_token[:, 0], home_of
        )
    return routing


def scores_of(logits: torch.Tensor, scoring: Scoring) -> torch.Tensor:
    """Router logits [..., N] float32 as scores."""
    if scoring == "softmax":
        return logits.softmax(dim=-1)
    if scoring == "sigmoid":
        return logits.sigmoid()
    return (logits.clamp(min=0) + (-logits.abs()).exp().log1p()).sqrt()


def own_keys(logits: torch.Tensor, scores: torch.Tensor, router: Router) -> torch.Tensor:
    """The router's own order of a token's experts, [..., N] int64: better is higher, -1 outside its
    groups."""
    choice = logits if router.bias is None else scores + router.bias.flatten().float()
    keys = sort_keys(choice)
    if router.groups == 1:
        return keys
    # logits do not add up
    value = (scores if router.bias is None and router.group_score == "top2" else choice).unflatten(
        -1, (router.groups, -1)
    )
    both = min(2, value.shape[-1]) if router.group_score == "top2" else 1
    worth = sort_keys(value.topk(both, dim=-1).values.sum(dim=-1))
    least = worth.topk(router.top_groups, dim=-1).values[..., -1:]
    member = (worth >= least)[..., None].expand(value.shape).flatten(-2)
    return torch.where(member, keys, -1)


def numbers_of(
    policy: Policy | Knobs,
    layer: int,
    router: Router,
    num_experts: int,
    num_real: int | torch.Tensor | None,
    is_token: torch.Tensor,
    drafts: torch.Tensor | None,
) -> tuple[Numbers, Room]:
    """The policy for a step: as numbers, where the host knows how many rows are real, else as
    tensors."""
    known = num_real is None or isinstance(num_real, int)
    if isinstance(policy, Policy) and known and drafts is None:
        batch = len(is_token)
        tokens = batch if num_real is None else min(max(int(num_real), 0), batch)
        return policy.numbers(tokens, layer, k=router.k, num_experts=num_experts), policy.room
    knobs = (
        policy
        if isinstance(policy, Knobs)
        else knobs_of(policy, layer, router.k, num_experts, is_token.device)
    )
    numbers, room = knobs.at(
        layer, (is_token[:, 0] if drafts is None else is_token[:, 0] & (drafts == 0)).sum()
    )
    if drafts is not None:
        return numbers, UNION
    return numbers, policy.room if isinstance(policy, Policy) else room


def drawn(
    own: torch.Tensor, router_logits: torch.Tensor, policy: Policy | Knobs, layer: int
) -> torch.Tensor:
    """The keys to choose by where the policy is, or may turn, random. [B, N] int64."""
    if isinstance(policy, Policy):
        return torch.where(own >= 0, random_keys(router_logits, policy.seed, layer), -1)
    on, seed = policy.draw_at(layer)
    return torch.where((own >= 0) & on, random_keys(router_logits, seed, layer), own)


def floor(
    best: torch.Tensor,
    scores: torch.Tensor,
    mass_own: torch.Tensor,
    numbers: Numbers,
    scoring: Scoring,
    rows: Rows,
) -> torch.Tensor:
    """Phase 1: which of its own top k each token is guaranteed. [..., B, k] bool."""
    rank = arange(best.shape[-1], best.device)
    guaranteed = (rank < numbers.floor).expand(best.shape)
    if rows.drafts is not None:
        guaranteed = guaranteed & ((rows.drafts == 0) | (rank < numbers.draft_floor))
    held = scores.gather(-1, expert_of(best))
    if isinstance(numbers.p, torch.Tensor) or numbers.p < 1.0:
        mass = held.double().cumsum(dim=-1)
        if scoring != "softmax":  # whose scores sum to 1 as they are
            mass = mass / (scores.double().sum(dim=-1, keepdim=True) + RENORMALIZE_EPSILON)
        reached_before = torch.nn.functional.pad(mass[..., :-1] >= numbers.p, (1, 0))
        if isinstance(numbers.p, torch.Tensor):
            reached_before = reached_before & (numbers.p < 1.0)  # rounding may sum to 1 early
        guaranteed = guaranteed & ~reached_before
    if isinstance(numbers.share, torch.Tensor) or numbers.share > 0.0:
        share = torch.as_tensor(numbers.share, dtype=torch.float32, device=best.device)
        guaranteed = guaranteed & ((held > share * mass_own) | (rank == 0) | (share == 0))
    if rows.k0 is not None:
        guaranteed = (guaranteed & ((rows.k0 <= 0) | (numbers.floor >= best.shape[-1]))) | (
            rank < rows.k0.abs()
        )
    return guaranteed & rows.real


def pool_of(keys: torch.Tensor, best: torch.Tensor, guaranteed: torch.Tensor) -> torch.Tensor:
    """The union of the floors: the experts this step loads. [..., N] bool."""
    return held_by(best, guaranteed, keys.shape[-1]).any(dim=-2)


def held_by(best: torch.Tensor, holds: torch.Tensor, num_experts: int) -> torch.Tensor:
    """Which experts each row holds of its own top k. [..., B, N] bool."""
    # a last column takes what nobody holds
    nobody = torch.where(holds, expert_of(best), num_experts)
    held = torch.zeros(*best.shape[:-1], num_experts + 1, dtype=torch.bool, device=best.device)
    return held.scatter(-1, nobody, True)[..., :-1]


def seen_from(
    best: torch.Tensor, guaranteed: torch.Tensor, drafts: torch.Tensor, num_experts: int
) -> torch.Tensor:
    """Which experts each row may take: its own floor, and those that tokens, its ancestors and
    guesses no deeper guarantee; see `loop_pools.seen_from`. [..., B, N] bool."""
    mine = held_by(best, guaranteed, num_experts)
    row = arange(len(drafts), drafts.device)
    back = row[:, None] - row - 1
    leads = ((~drafts.clamp(max=-1) >> back.clamp(0, 62)) & 1).bool() & (back >= 0) & (back < 63)
    led = leads.float() @ mine.float() > 0
    depth = torch.where(drafts < 0, DEEPEST, drafts)
    least = torch.where(mine, depth, DEEPEST).amin(dim=-2, keepdim=True)
    return mine | led | (least <= drafts.clamp(min=0))


def fill(
    keys: torch.Tensor, open_to: torch.Tensor, numbers: Numbers, width: int, rows: Rows | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Phase 2: each token's best experts of those that are open to it, its own floor first among
    them.

    Returns the chosen keys [..., B, width] (-1 where the pool ran out) and which slots are used.
    """
    num_experts = keys.shape[-1]
    reach, limit = numbers.reach, numbers.limit
    asked = None if rows is None else rows.k0
    if isinstance(reach, torch.Tensor) or reach < num_experts:
        ranked = keys.sort(dim=-1, descending=True).values
        last = torch.as_tensor(reach, device=keys.device)
        last = (last if asked is None else torch.maximum(last, asked.abs())).expand(
            *keys.shape[:-1], 1
        ) - 1
        open_to = open_to & (keys >= ranked.gather(-1, last.long()))
    width = min(width, num_experts)
    chosen = torch.where(open_to, keys, -1).topk(width, dim=-1).values
    used = (chosen >= 0) & (arange(width, keys.device) < limit)
    return chosen, used if rows is None else used & rows.real


def weigh(
    chosen: torch.Tensor,
    used: torch.Tensor,
    pool: torch.Tensor,
    scores: torch.Tensor,
    mass_own: torch.Tensor,
    router: Router,
    mix: float | torch.Tensor,
    real: torch.Tensor | None,
) -> tuple[Routing, torch.Tensor]:
    """The model's own scores over the chosen set; unused slots wake no expert. Also their mass,
    [..., B]."""
    ids = expert_of(chosen)
    weights = torch.where(used, scores.gather(-1, ids), 0.0)
    mass = weights.sum(dim=-1, keepdim=True)
    if router.renormalize:
        mixed = mass
        if isinstance(mix, torch.Tensor) or mix < 1.0:
            mixed = mix * mass + (1 - mix) * mass_own
        weights = weights / (mixed + RENORMALIZE_EPSILON)
    if router.expert_scale is not None:
        weights = weights * router.expert_scale.flatten().float()[ids]
    if router.scale != 1.0:
        weights = weights * router.scale
    best = ids[..., :1]
    spare = (
        best
        if real is None
        else torch.where(real, best, pool.int().argmax(dim=-1)[..., None, None])
    )
    return Routing(weights, torch.where(used, ids, spare).int(), pool), mass[..., 0]
