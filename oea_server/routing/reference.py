"""The slow, obvious version, one token and one expert at a time. Everything else is checked
against it; it has the same signature and result as `oea_server.routing.route`."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping

import torch

from oea_server.routing.eager import RENORMALIZE_EPSILON, Routing, Scoring
from oea_server.routing.keys import random_keys
from oea_server.routing.placement import Placement, contiguous
from oea_server.routing.policy import Policy
from oea_server.routing.tally import MASS_UNIT, Tally
from oea_server.routing.widen import VOTE


def route(
    router_logits: torch.Tensor,
    policy: Policy,
    *,
    k: int,
    renormalize: bool = True,
    num_real: int | torch.Tensor | None = None,
    layer: int = 0,
    scoring: Scoring = "softmax",
    bias: torch.Tensor | None = None,
    tally: Tally | None = None,
    placement: Placement | None = None,
) -> Routing:
    """See `oea_server.routing.route`. Runs on the CPU whatever the input's device."""
    batch, num_experts = router_logits.shape
    if not 1 <= k <= num_experts:
        raise ValueError(f"k={k} is outside 1..{num_experts}, the number of experts")
    policy.check(k=k, num_experts=num_experts)
    tokens = range(batch if num_real is None else min(max(int(num_real), 0), batch))

    logits = router_logits.cpu().float()
    scored = logits.softmax(dim=-1) if scoring == "softmax" else logits.sigmoid()
    scores = scored.tolist()
    own = logits if bias is None else scored + bias.cpu()
    preference = own if policy.name != "random" else random_keys(router_logits.cpu(), policy.seed, layer)
    ranking = rank(preference)
    broken = {i for i in tokens if any(math.isnan(score) for score in scores[i])}
    n, limit, reach = policy.numbers(len(tokens), layer, k=k, num_experts=num_experts)

    # Phase 1: every token is guaranteed its best experts; together they are the pool.
    floors: list[list[int]] = []
    for i in tokens:
        guaranteed: list[int] = []
        mass = 0.0
        total = 1.0 if scoring == "softmax" else sum(scores[i])
        for expert in ranking[i][:n] if i not in broken else []:
            if policy.p < 1.0 and mass / (total + RENORMALIZE_EPSILON) >= policy.p:
                break
            guaranteed.append(expert)
            mass += scores[i][expert]
        floors.append(guaranteed)
    pool = {expert for guaranteed in floors for expert in guaranteed}

    # On which rank each expert is read, and what the ranks take beside the floors.
    place = placement or contiguous(num_experts, policy.ranks, logits.device)
    home = homes(pool, place)
    place.home.copy_(torch.tensor(home))
    wanted: dict[int, int] = defaultdict(int)
    for i in set(tokens) - broken:
        likes = (logits[i] - logits[i].max()).exp() if scoring == "softmax" else scored[i]
        for expert, vote in list(votes_of(likes, ranking[i][:k]).items())[: min(limit, reach)]:
            wanted[expert] += vote
    pool |= widened(pool, wanted, [each // place.slots for each in home], policy, place.ranks)

    # Phase 2: down its own ranking, a token adds experts that are awake anyway.
    width = policy.width(k)
    weights = torch.zeros(batch, width, dtype=torch.float32)
    ids = torch.full((batch, width), min(pool, default=0), dtype=torch.int32)
    weights[list(broken), :limit] = math.nan
    chosen = [filled(floors[i], ranking[i][:reach], pool, limit) for i in tokens]
    for i, takes in enumerate(chosen):
        if i in broken:
            continue
        kept = torch.tensor([scores[i][expert] for expert in takes], dtype=torch.float32)
        if renormalize:
            kept = kept / (kept.sum() + RENORMALIZE_EPSILON)
        ids[i] = takes[0]
        ids[i, : len(takes)] = torch.tensor(takes, dtype=torch.int32)
        weights[i, : len(takes)] = kept

    if tally is not None:
        ranked = rank(own)
        vanilla = [ranked[i][:k] if i not in broken else [] for i in tokens]
        count(tally, layer, pool, floors, chosen, vanilla, scores, home if placement or not tally.placed else None)
    awake = torch.zeros(num_experts, dtype=torch.bool)
    awake[list(pool)] = True
    return Routing(weights, ids, awake)


def rank(preference: torch.Tensor) -> list[list[int]]:
    """Each token's experts, best first, ties to the lowest id."""
    return [sorted(range(len(row)), key=lambda e: (-row[e], e)) for row in preference.tolist()]


def votes_of(likes: torch.Tensor, own: list[int]) -> dict[int, int]:
    """What a token votes for each of its own top k, best first: (weight / their sum)^4, in units of 1 / VOTE."""
    mass = torch.zeros(())  # float32, best first, as everywhere: another rounding would part what is tied
    for expert in own:
        mass = mass + likes[expert]
    return {expert: int((likes[expert] / (mass + RENORMALIZE_EPSILON)).square().square() * VOTE) for expert in own}


def homes(pool: set[int], place: Placement) -> list[int]:
    """The physical expert that each expert is read from: of several the one on the least loaded rank, the pool's
    experts before the others, each by id."""
    copies = [[each for each in row if each >= 0] for row in place.physical.tolist()]
    home = [each[0] for each in copies]
    load = Counter(home[expert] // place.slots for expert in pool if len(copies[expert]) == 1)
    for expert in sorted(range(len(copies)), key=lambda e: (e not in pool, e)):
        if len(copies[expert]) > 1:
            home[expert] = min(copies[expert], key=lambda each: (load[each // place.slots], each))
            load[home[expert] // place.slots] += 1
    return home


def widened(pool: set[int], wanted: Mapping[int, int], rank_of: list[int], policy: Policy, ranks: int) -> set[int]:
    """What is taken beside the floors, most wanted first."""
    load = Counter(rank_of[expert] for expert in pool)
    most = {"union": 0, "fill": max(load.values(), default=0), "budget": policy.rank_budget or 0}[policy.pool]
    taken: set[int] = set()
    for expert in sorted(wanted, key=lambda e: (-wanted[e], e)):
        if wanted[expert] > 0 and expert not in pool and load[rank_of[expert]] < most:
            taken.add(expert)
            load[rank_of[expert]] += 1
    return taken


def filled(floor: list[int], ranked: list[int], pool: set[int], limit: int) -> list[int]:
    """A floor and the best of the pool beside it; a row without a floor is broken, and takes nothing."""
    takes = list(floor)
    for expert in ranked[len(floor) :] if floor else []:
        if len(takes) < limit and expert in pool:
            takes.append(expert)
    return takes


def count(
    tally: Tally,
    layer: int,
    pool: set[int],
    floors: list[list[int]],
    chosen: list[list[int]],
    vanilla: list[list[int]],
    scores: list[list[float]],
    home: list[int] | None,
) -> None:
    """What `Tally.add_routed` counts, one token at a time."""
    row, once = tally.row[layer], int(tally.counting)
    share = tally.num_experts // tally.ranks
    if not tally.placed and home is not None:
        tally.unique[row, len(pool)] += once
        if tally.ranks > 1:
            tally.busiest[row, max(Counter(home[expert] // share for expert in pool).values(), default=0)] += once
    awake = {expert for experts in vanilla for expert in experts}
    tally.vanilla[row, len(awake)] += once
    if tally.ranks > 1 and home is not None:
        on_rank = Counter(home[expert] // share for expert in awake)
        tally.vanilla_busiest[row, max(on_rank.values(), default=0)] += once
    for i, takes in enumerate(chosen):
        kept = sum(scores[i][e] for e in takes) / (sum(scores[i][e] for e in vanilla[i]) + RENORMALIZE_EPSILON)
        kept = min(kept, len(takes))
        each = [1, len(takes), len(takes) - len(floors[i]), int(kept * MASS_UNIT + 0.5)]
        tally.sums[row] += torch.tensor(each) * once
