"""The slow, obvious version, one token and one expert at a time. Everything else is checked
against it; it has the same signature and result as `oea_server.routing.route`."""

from __future__ import annotations

import torch

from oea_server.routing.eager import RENORMALIZE_EPSILON, Routing, random_keys
from oea_server.routing.policy import Policy


def route(
    router_logits: torch.Tensor,
    policy: Policy,
    *,
    k: int,
    renormalize: bool = True,
    num_real: int | torch.Tensor | None = None,
    layer: int = 0,
) -> Routing:
    """See `oea_server.routing.route`. Runs on the CPU whatever the input's device."""
    batch, num_experts = router_logits.shape
    if not 1 <= k <= num_experts:
        raise ValueError(f"k={k} is outside 1..{num_experts}, the number of experts")
    policy.check(k=k, num_experts=num_experts)
    tokens = range(batch if num_real is None else int(num_real))

    scores = router_logits.cpu().float().softmax(dim=-1).tolist()
    preference = scores if policy.name != "random" else random_keys(router_logits.cpu(), policy.seed, layer).tolist()
    ranking = [sorted(range(num_experts), key=lambda e: (-preference[i][e], e)) for i in range(batch)]
    n, limit, reach = policy.numbers(len(tokens), layer, k=k, num_experts=num_experts)

    # Phase 1: every token is guaranteed its best experts; together they are the pool.
    floors: list[list[int]] = []
    for i in tokens:
        guaranteed: list[int] = []
        mass = 0.0
        for expert in ranking[i][:n]:
            if policy.p < 1.0 and mass >= policy.p:
                break
            guaranteed.append(expert)
            mass += scores[i][expert]
        floors.append(guaranteed)
    pool = {expert for guaranteed in floors for expert in guaranteed}

    # Phase 2: down its own ranking, a token adds experts that are awake anyway.
    width = policy.width(k)
    weights = torch.zeros(batch, width, dtype=torch.float32)
    ids = torch.full((batch, width), min(pool, default=0), dtype=torch.int32)
    for i in tokens:
        chosen = list(floors[i])
        for expert in ranking[i][len(chosen) : reach]:
            if len(chosen) < limit and expert in pool:
                chosen.append(expert)
        kept = torch.tensor([scores[i][expert] for expert in chosen], dtype=torch.float32)
        if renormalize:
            kept = kept / (kept.sum() + RENORMALIZE_EPSILON)
        ids[i] = chosen[0]
        ids[i, : len(chosen)] = torch.tensor(chosen, dtype=torch.int32)
        weights[i, : len(chosen)] = kept

    awake = torch.zeros(num_experts, dtype=torch.bool)
    awake[list(pool)] = True
    return Routing(weights, ids, awake)
