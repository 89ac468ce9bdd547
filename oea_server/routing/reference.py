"""The slow, obvious version, one token and one expert at a time. Everything else is checked
against it; it has the same signature and result as `oea_server.routing.route`."""

from __future__ import annotations

import torch

from oea_server.routing.eager import RENORMALIZE_EPSILON, Routing, Scoring
from oea_server.routing.keys import random_keys
from oea_server.routing.policy import Policy
from oea_server.routing.tally import MASS_UNIT, Tally


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
) -> Routing:
    """See `oea_server.routing.route`. Runs on the CPU whatever the input's device."""
    batch, num_experts = router_logits.shape
    if not 1 <= k <= num_experts:
        raise ValueError(f"k={k} is outside 1..{num_experts}, the number of experts")
    policy.check(k=k, num_experts=num_experts)
    tokens = range(batch if num_real is None else int(num_real))

    logits = router_logits.cpu().float()
    scored = logits.softmax(dim=-1) if scoring == "softmax" else logits.sigmoid()
    scores = scored.tolist()
    own = logits if bias is None else scored + bias.cpu()
    preference = own if policy.name != "random" else random_keys(router_logits.cpu(), policy.seed, layer)
    ranking = rank(preference)
    n, limit, reach = policy.numbers(len(tokens), layer, k=k, num_experts=num_experts)

    # Phase 1: every token is guaranteed its best experts; together they are the pool.
    floors: list[list[int]] = []
    for i in tokens:
        guaranteed: list[int] = []
        mass = 0.0
        total = 1.0 if scoring == "softmax" else sum(scores[i])
        for expert in ranking[i][:n]:
            if policy.p < 1.0 and mass / (total + RENORMALIZE_EPSILON) >= policy.p:
                break
            guaranteed.append(expert)
            mass += scores[i][expert]
        floors.append(guaranteed)
    pool = {expert for guaranteed in floors for expert in guaranteed}

    # Phase 2: down its own ranking, a token adds experts that are awake anyway.
    width = policy.width(k)
    weights = torch.zeros(batch, width, dtype=torch.float32)
    ids = torch.full((batch, width), min(pool, default=0), dtype=torch.int32)
    chosen: list[list[int]] = []
    for i in tokens:
        takes = list(floors[i])
        for expert in ranking[i][len(takes) : reach]:
            if len(takes) < limit and expert in pool:
                takes.append(expert)
        kept = torch.tensor([scores[i][expert] for expert in takes], dtype=torch.float32)
        if renormalize:
            kept = kept / (kept.sum() + RENORMALIZE_EPSILON)
        ids[i] = takes[0]
        ids[i, : len(takes)] = torch.tensor(takes, dtype=torch.int32)
        weights[i, : len(takes)] = kept
        chosen.append(takes)

    if tally is not None:
        vanilla = [ranked[:k] for ranked in rank(own)[: len(tokens)]]
        count(tally, layer, pool, floors, chosen, vanilla, scores)
    awake = torch.zeros(num_experts, dtype=torch.bool)
    awake[list(pool)] = True
    return Routing(weights, ids, awake)


def rank(preference: torch.Tensor) -> list[list[int]]:
    """Each token's experts, best first, ties to the lowest id."""
    return [sorted(range(len(row)), key=lambda e: (-row[e], e)) for row in preference.tolist()]


def count(
    tally: Tally,
    layer: int,
    pool: set[int],
    floors: list[list[int]],
    chosen: list[list[int]],
    vanilla: list[list[int]],
    scores: list[list[float]],
) -> None:
    """What `Tally.add_routed` counts, one token at a time."""
    row, once = tally.row[layer], int(tally.counting)
    share = tally.num_experts // tally.ranks
    if not tally.placed:
        tally.unique[row, len(pool)] += once
        if tally.ranks > 1:
            on_rank = [sum(expert // share == rank for expert in pool) for rank in range(tally.ranks)]
            tally.busiest[row, max(on_rank)] += once
    tally.vanilla[row, len({expert for experts in vanilla for expert in experts})] += once
    for i, takes in enumerate(chosen):
        kept = sum(scores[i][e] for e in takes) / (sum(scores[i][e] for e in vanilla[i]) + RENORMALIZE_EPSILON)
        each = [1, len(takes), len(takes) - len(floors[i]), int(kept * MASS_UNIT + 0.5)]
        tally.sums[row] += torch.tensor(each) * once
