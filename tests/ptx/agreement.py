"""Whether kernel, loop and vectorised form agree on what a router, a policy, a placement and a step
can be.

Draws are of everything that `route` takes, ties, pads, masks, broken rows, floors by row and
guesses to be verified among them."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any, NamedTuple

import torch

from oea_server.routing import Policy, Router, eager, fused, host
from oea_server.routing.contract import SCORINGS
from oea_server.routing.placement import contiguous
from oea_server.routing.policy import POOLS
from oea_server.routing.tally import HostTally, Tally

CPU = torch.device("cpu")
EXPERTS = (8, 32, 60, 64, 128, 128, 160, 256, 384, 512, 1024)
TOP_K = (1, 2, 4, 6, 8, 8, 8, 10, 16, 32)
BATCHES = (1, 3, 16, 17, 32, 33, 50, 130)
ELEMENTS = 20_000
"""Of a step's logits, about: the interpreter of PTX takes a second for them."""
MASS = 40
"""Units of router mass by which the sums of a row may differ: float32 rounds its scores and their
sum."""


class Case(NamedTuple):
    """One call of `route`."""

    logits: torch.Tensor
    policy: Policy
    router: Router
    ranks: int
    rest: dict[str, Any]


def drawn(seed: int) -> Case:
    draw, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    n = draw.choice(EXPERTS)
    k = min(draw.choice(TOP_K), n)
    batch = min(draw.choice(BATCHES), max(1, ELEMENTS // n))
    router = router_of(draw, generator, n, k)
    ranks = draw.choice([each for each in (1, 1, 2, 4, 8) if n % each == 0])
    if ranks == 1 and draw.random() < 0.2:
        router = replace(router, zero_experts=draw.randint(1, n // 2))
    logits = torch.randn(batch, n, generator=generator) * draw.choice([0.5, 2, 5])
    if draw.random() < 0.3:
        logits = logits.round()  # ties
    if draw.random() < 0.3:
        logits[draw.randrange(batch), draw.randrange(n)] = draw.choice(
            [torch.nan, -torch.nan, torch.inf, -torch.inf]
        )
    logits = logits.to(draw.choice([torch.bfloat16, torch.bfloat16, torch.float16, torch.float32]))
    rest: dict[str, Any] = {"layer": draw.choice([0, 7])}
    if (how := draw.random()) < 0.25:
        rest["num_real"] = torch.rand(batch, generator=generator) < 0.7
    elif how < 0.5:
        rest["num_real"] = draw.randint(0, batch)
    elif how < 0.75:
        rest["num_real"] = torch.tensor(
            draw.randint(0, batch), dtype=draw.choice([torch.int32, torch.int64])
        )
    if draw.random() < 0.3:
        rest["row_k0"] = torch.randint(-k - 1, k + 2, (batch,), generator=generator)
    if draw.random() < 0.3:
        guesses = torch.randint(-1, 4, (batch,), generator=generator)
        ancestors = torch.randint(0, 1 << 62, (batch,), generator=generator) & 0b1011
        rest["drafts"] = torch.where(guesses < 0, ~ancestors, guesses)
    return Case(logits, policy_of(draw, n, k, ranks), router, ranks, rest)


def router_of(draw: random.Random, generator: torch.Generator, n: int, k: int) -> Router:
    groups = draw.choice([each for each in (1, 1, 1, 2, 4, 8) if n % each == 0])
    top_groups = max(draw.randint(1, groups), -(-k * groups // n))
    return Router(
        k,
        renormalize=draw.random() < 0.7,
        scoring=draw.choice([SCORINGS[0], *SCORINGS]),
        bias=torch.randn(n, generator=generator) * 0.2 if draw.random() < 0.3 else None,
        groups=groups,
        top_groups=top_groups,
        group_score=draw.choice(["top2", "max"]),
        scale=draw.choice([1.0, 2.5]),
        expert_scale=torch.rand(n, generator=generator) + 0.5 if draw.random() < 0.2 else None,
    )


def policy_of(draw: random.Random, n: int, k: int, ranks: int) -> Policy:
    k0 = draw.randint(1, k)
    others = {
        "vanilla": Policy.vanilla(),
        "random": Policy.random(draw.randint(0, 9)),
        "pruned": Policy.pruned(k0),
    }
    if (name := draw.choice(["oea", "oea", "oea", "oea", *others])) in others:
        return others[name]
    return Policy.oea(
        k0,
        p=draw.choice([1.0, 1.0, 0.4, 0.7]),
        k_max=draw.randint(k0, min(32, n)) if draw.random() < 0.2 else None,
        max_rank=draw.randint(k0, n) if draw.random() < 0.3 else None,
        min_batch=draw.choice([1, 2]),
        pool=(pool := draw.choice(POOLS)),
        ranks=ranks,
        rank_budget=draw.randint(1, max(1, n // ranks)) if pool == "budget" else None,
        share=draw.choice([None, None, 0.1, 0.2]),
        mix=draw.choice([1.0, 1.0, 0.5, 0.0]),
        draft_k0=draw.choice([None, draw.randint(1, k)]),
    )


def agree(seed: int, device: torch.device = CPU) -> None:
    """Assert that they do on one draw.

    Args:
        device: where the kernel runs; the other two run on the CPU.
    """
    case = drawn(seed)
    layer, n = case.rest["layer"], case.logits.shape[1]
    loaded = n - case.router.zero_experts
    tallies = [
        Tally([layer], loaded, case.ranks, device),
        *(HostTally([layer], loaded, case.ranks) for _ in range(2)),
    ]
    ours, *others = (
        answer(case, route, tally, where)
        for route, tally, where in zip(
            (fused.route, eager.route, host.route), tallies, (device, CPU, CPU), strict=True
        )
    )
    for other in others:
        for name in ("ids", "pool", "home", "counts"):
            assert torch.equal(ours[name], other[name]), name
        torch.testing.assert_close(
            ours["weights"], other["weights"], rtol=2e-5, atol=1e-6, equal_nan=True
        )
        assert int((ours["mass"] - other["mass"]).abs()) <= MASS * len(case.logits)


def answer(case: Case, route: Any, tally: Tally, device: torch.device) -> dict[str, torch.Tensor]:
    """All that comes of a call on a device, on the CPU."""
    n, router = case.logits.shape[1], case.router
    moved = {
        name: each.to(device)
        for name in ("bias", "expert_scale")
        if (each := getattr(router, name)) is not None
    }
    router = replace(router, **moved)
    rest = {
        name: each.to(device) if isinstance(each, torch.Tensor) else each
        for name, each in case.rest.items()
    }
    place = contiguous(n, case.ranks, device)._replace(
        home=torch.full((n,), -1, dtype=torch.int32, device=device)
    )
    placement = place if case.ranks > 1 else None
    routing = route(
        case.logits.to(device), case.policy, router, tally=tally, placement=placement, **rest
    )
    found = {
        **routing._asdict(),
        "home": place.home,
        "counts": tally.data[:, :-1],
        "mass": tally.data[0, -1],
    }
    return {name: each.cpu() for name, each in found.items()}
