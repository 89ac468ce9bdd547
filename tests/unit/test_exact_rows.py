"""A row that asks for its whole top k is vanilla's to the bit, whatever the policy and whoever is
beside it."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch

from oea_server.routing import Policy, Router, eager, fused, host
from oea_server.routing.contract import SCORINGS
from oea_server.routing.host import reference
from oea_server.routing.knobs import Knobs
from tests.unit.test_routing_reference import DEVICE, logits

N, K = 32, 4
POLICIES = {
    "oea": Policy.oea(1),
    "share, mix": Policy.oea(4, share=0.3, mix=0.5),
    "mix 0": Policy.oea(2, mix=0.0),
    "p, reach": Policy.oea(2, p=0.3, max_rank=2, mix=0.7),
    "fewer": Policy.oea(1, k_max=2, max_rank=3, mix=0.25),
    "fill": Policy.oea(1, pool="fill", ranks=4, mix=0.5),
    "budget": Policy.oea(1, pool="budget", rank_budget=1, ranks=4, share=0.5),
    "drafts": Policy.oea(3, draft_k0=1, mix=0.5),
    "min_batch": Policy.oea(1, min_batch=20),
    "pruned": Policy.pruned(1),
    "random": Policy.random(3),
    "vanilla": Policy.vanilla(),
}
ROUTERS = {
    "softmax": Router(K),
    "not divided": Router(K, renormalize=False),
    "biased, grouped": Router(K, True, "sigmoid", torch.linspace(-0.3, 0.3, N), 4, 2, "top2", 2.5),
    "sqrtsoftplus": Router(K, scoring=SCORINGS[2], expert_scale=torch.linspace(0.5, 1.5, N)),
}
CHAIN = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2])
ASKED = torch.tensor([K, 0, 1, -K, 99, -99, 0, 2, -2, 0, K, 0])
EXACT = ASKED.abs() >= K


def there(router: Router) -> Router:
    bias, scale = (
        None if each is None else each.to(DEVICE) for each in (router.bias, router.expert_scale)
    )
    return replace(router, bias=bias, expert_scale=scale)


def fused_there(given: torch.Tensor, policy: Policy, router: Router, **rest: Any) -> Any:
    moved: dict[str, Any] = {
        name: each.to(DEVICE) if isinstance(each, torch.Tensor) else each
        for name, each in rest.items()
    }
    return fused.route(given.to(DEVICE), policy, there(router), **moved)


IMPLEMENTATIONS = {
    "reference": reference,
    "host": host.route,
    "eager": eager.route,
    "fused": pytest.param(fused_there, marks=pytest.mark.interpreter),
}


@pytest.mark.parametrize("route", IMPLEMENTATIONS.values(), ids=IMPLEMENTATIONS)
@pytest.mark.parametrize("router", ROUTERS)
@pytest.mark.parametrize("name", POLICIES)
def test_exact_rows_are_vanillas_to_the_bit(name: str, router: str, route: Any) -> None:
    policy, asked = POLICIES[name], ROUTERS[router]
    if asked.renormalize is False and policy.mix != 1.0:
        pytest.skip("a model that does not divide weights has no mixture")
    for seed, (drafts, real) in enumerate(itertools.product((None, CHAIN), (None, 11))):
        given = logits(12, N, torch.float32, seed == 1, seed)
        rest: dict[str, Any] = {"num_real": real, **({} if drafts is None else {"drafts": drafts})}
        vanilla = route(given, Policy.vanilla(), asked, **rest)
        routing = route(given, policy, asked, row_k0=ASKED, **rest)
        rows = EXACT & (torch.arange(12) < 11)
        assert torch.equal(routing.ids[rows].cpu(), vanilla.ids[rows].cpu())
        assert torch.equal(routing.weights[rows].cpu(), vanilla.weights[rows].cpu())
        # they are read, and open to the neighbours
        assert routing.pool[routing.ids[rows].long()].all()


@pytest.mark.parametrize("name", ["oea", "share, mix", "fill", "pruned"])
def test_knobs_that_a_graph_reads_do_the_same(name: str) -> None:
    knobs, asked = Knobs({0: K}, N, torch.device("cpu")), ROUTERS["softmax"]
    given = logits(12, N, torch.float32, False, 9)
    found = []
    for policy in (POLICIES[name], Policy.vanilla()):
        knobs.write(policy)
        found.append(eager.route(given, knobs, asked, num_real=torch.tensor(12), row_k0=ASKED))
    assert torch.equal(found[0].ids[EXACT], found[1].ids[EXACT])
    assert torch.equal(found[0].weights[EXACT], found[1].weights[EXACT])


@pytest.mark.parametrize("name", ["oea", "share, mix", "p, reach", "budget"])
def test_neighbours_lose_nothing(name: str) -> None:
    """Whatever a row took of the pool is still there; what is better and awake now may come in its
    place."""
    policy, asked = POLICIES[name], ROUTERS["softmax"]
    for seed in range(12):
        given = logits(12, N, torch.float32, False, 20 + seed)
        scores = given.softmax(dim=1)
        without, beside = (
            reference(given, policy, asked, row_k0=each) for each in (None, ASKED.where(EXACT, 0))
        )
        kept = [
            (scores.gather(1, each.ids.long()) * (each.weights > 0)).sum(dim=1)
            for each in (without, beside)
        ]
        if policy.pool == "union":
            assert (kept[1] >= kept[0] - 1e-6).all()
        else:  # a budget is spent once: on average over the step
            assert float(kept[1].sum()) >= float(kept[0].sum()) - 1e-6
