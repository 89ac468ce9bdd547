"""A row whose scores are not finite changes nothing for its neighbours and poisons no counter, in
all implementations, under all policies and pools. The fused launch runs natively on a GPU, else in
Triton's interpreter."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from oea_server.routing import Policy, Router, Routing, Schedule, fused, host
from oea_server.routing.eager import route
from oea_server.routing.host import reference
from oea_server.routing.knobs import Knobs
from oea_server.routing.tally import MASS_UNIT, HostTally, Tally

pytestmark = [
    pytest.mark.filterwarnings("ignore:All-NaN slice encountered"),  # Triton's interpreter is numpy
    pytest.mark.filterwarnings("ignore:invalid value encountered"),
]

Route = Callable[..., Routing]
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
CPU = torch.device("cpu")
ROUTERS: dict[str, Route] = {
    "reference": reference,
    "eager": route,
    "host": host.route,
    "fused": fused.route,
}
every_router = pytest.mark.parametrize("name", ROUTERS)
N, K = 16, 4

POLICIES = {
    "vanilla": Policy.vanilla(),
    "random": Policy.random(3),
    "pruned": Policy.pruned(2),
    "oea": Policy.oea(2),
    "scheduled": Policy.oea("1:4,6:3,9:1"),
    "p": Policy.oea(3, p=0.4),
    "k_max": Policy.oea(1, k_max=3),
    "wide": Policy.oea(2, k_max=6),
    "max_rank": Policy.oea(1, max_rank=6),
    "fill": Policy.oea(1, pool="fill", ranks=4),
    "budget": Policy.oea(1, pool="budget", rank_budget=3, ranks=2),
    "one budget": Policy.oea(1, pool="budget", rank_budget=7),
}

NAN, INF = float("nan"), float("inf")
BREAKS: dict[str, Callable[[torch.Tensor], Any]] = {
    "one NaN": lambda row: row[5].fill_(NAN),
    "one -NaN": lambda row: row[5].fill_(-NAN),
    "all NaN": lambda row: row.fill_(NAN),
    "one inf": lambda row: row[5].fill_(INF),
    "all inf": lambda row: row.fill_(INF),
    "all -inf": lambda row: row.fill_(-INF),
    "inf and -inf": lambda row: row[4:6].copy_(torch.tensor([INF, -INF])),
}


def logits(rows: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, N, generator=torch.Generator().manual_seed(seed)) * 2


def on_device(name: str, given: torch.Tensor) -> torch.Tensor:
    return given.to(DEVICE) if name in ("eager", "fused") else given


def call(name: str, given: torch.Tensor, policy: Policy | Knobs, **options: Any) -> Routing:
    router = options.pop("router", Router(K))
    routing = ROUTERS[name](on_device(name, given), policy, router, **options)
    return Routing(*(each.cpu() for each in routing))


def tally_for(name: str, ranks: int = 1) -> Tally:
    return (
        HostTally([0], N, ranks) if name in ("reference", "host") else Tally([0], N, ranks, DEVICE)
    )


def as_at(policy: Policy, tokens: int) -> Policy:
    """The policy that treats a step of any size as this one does a step of so many tokens."""
    if policy.k0 is None:
        return policy
    return replace(policy, k0=Schedule.of(policy.k0.at(tokens, 0) or K), min_batch=1)


@every_router
@pytest.mark.parametrize("of", POLICIES)
def test_to_its_neighbours_a_broken_row_is_a_pad_row(name: str, of: str) -> None:
    policy, good, tokens = POLICIES[of], 7, 9
    breaks = list(BREAKS.values()) if name != "fused" else [BREAKS["one NaN"], BREAKS["all -inf"]]
    for seed, break_ in enumerate(breaks):
        given = logits(10, seed)  # seven good rows, two broken ones and a pad
        for row in (7, 8):
            break_(given[row])
        tally, expected_tally = tally_for(name), tally_for(name)
        ours = call(name, given, policy, num_real=tokens, tally=tally)
        expected = call(name, given, as_at(policy, tokens), num_real=good, tally=expected_tally)
        assert torch.equal(ours.ids, expected.ids)
        assert torch.equal(ours.pool, expected.pool)
        assert torch.equal(
            ours.weights[[0, 1, 2, 3, 4, 5, 6, 9]], expected.weights[[0, 1, 2, 3, 4, 5, 6, 9]]
        )
        limit = policy.numbers(tokens, 0, k=K, num_experts=N).limit
        assert ours.weights[7:9, :limit].isnan().all()
        assert not ours.weights[7:9, limit:].any()
        assert ours.pool[ours.ids.long()].all()
        # two tokens more, which take nothing and keep nothing
        assert (tally.counted - expected_tally.counted)[0].nonzero().tolist() == [[4 * (N + 1)]]
        assert tally.sums[0, 0] - expected_tally.sums[0, 0] == 2


@pytest.mark.parametrize("name", ["eager", "host", "fused"])
@pytest.mark.parametrize("of", POLICIES)
def test_wherever_it_stands_all_implementations_agree(name: str, of: str) -> None:
    policy, ranks = POLICIES[of], POLICIES[of].ranks
    given = logits(11, 5)
    for row, break_ in zip(
        (0, 3, 4, 9), ("all NaN", "one inf", "one NaN", "all -inf"), strict=True
    ):
        BREAKS[break_](given[row])
    given[1, :6] = -INF  # masked experts break nothing
    tallies = tally_for("reference", ranks), tally_for(name, ranks)
    expected = call("reference", given, policy, num_real=10, tally=tallies[0])
    ours = call(name, given, policy, num_real=10, tally=tallies[1])
    assert torch.equal(ours.ids, expected.ids)
    assert torch.equal(ours.pool, expected.pool)
    assert expected.weights.isnan().any(dim=1).nonzero().flatten().tolist() == [0, 3, 4, 9]
    torch.testing.assert_close(ours.weights, expected.weights, rtol=1e-5, atol=1e-7, equal_nan=True)
    assert torch.equal(tallies[1].data[:, :-1].cpu(), tallies[0].data[:, :-1])
    assert abs(int(tallies[1].sums[0, 3]) - int(tallies[0].sums[0, 3])) <= 10


@every_router
def test_masked_experts_break_nothing(name: str) -> None:
    given = logits(5)
    given[2, :12] = -INF
    routing = call(name, given, Policy.oea(2))
    assert not routing.weights.isnan().any()
    assert (routing.ids[2, :2] >= 12).all()


@every_router
@pytest.mark.parametrize("biased", [False, True])
def test_of_a_sigmoid_router_only_nan_breaks_a_row(name: str, biased: bool) -> None:
    given = logits(8, 1)
    given[0, 3], given[1, 3], given[2] = INF, -INF, -INF
    given[6, 3] = NAN
    bias = on_device(name, torch.linspace(-0.5, 0.5, N)) if biased else None
    router, tally = Router(K, scoring="sigmoid", bias=bias), tally_for(name)
    ours = call(name, given, Policy.oea(2, p=0.9), num_real=7, router=router, tally=tally)
    expected = call(name, given, Policy.oea(2, p=0.9), num_real=6, router=router)
    assert ours.weights.isnan().any(dim=1).nonzero().flatten().tolist() == [6]
    assert torch.equal(ours.ids, expected.ids)
    assert torch.equal(ours.pool, expected.pool)
    assert torch.equal(ours.weights[:6], expected.weights[:6])
    assert 0 < tally.sums[0, 3] <= 7 * MASS_UNIT * 2


@every_router
@pytest.mark.parametrize("of", ["vanilla", "random", "oea", "budget"])
def test_a_step_of_broken_rows_alone(name: str, of: str) -> None:
    tally = tally_for(name)
    routing = call(name, torch.full((3, N), NAN), POLICIES[of], tally=tally)
    assert not routing.ids.any()
    assert routing.weights.isnan().any(dim=1).all()
    assert not routing.pool.any()
    assert tally.sums[0].tolist() == [3, 0, 0, 0]
    assert tally.unique[0, 0] == tally.vanilla[0, 0] == 1


@every_router
def test_the_mass_moves_on_after_it(name: str) -> None:
    tally = tally_for(name)
    seen = [0]
    for seed in range(4):
        given = logits(3, seed)
        if seed in (1, 2):
            given[1] = NAN
        call(name, given, Policy.oea(2), tally=tally)
        seen.append(int(tally.sums[0, 3]))
    gained = [after - before for before, after in itertools.pairwise(seen)]
    assert all(0 < each <= 3 * MASS_UNIT for each in gained)
    assert max(gained[1:3]) <= 2 * MASS_UNIT
    assert tally.sums[0, 0] == 12


@every_router
def test_a_bias_that_prefers_the_weightless_keeps_the_mass_in_bounds(name: str) -> None:
    """The first token's own top k weigh nothing, and it finds the second one's expert awake, which
    weighs a lot."""
    given = torch.full((2, N), -70.0)
    given[0, 8:] = 0.0
    given[1, 9] = 3.0
    bias = torch.zeros(N)
    bias[:8] = torch.linspace(0.7, 0.6, 8)
    for policy in (Policy.oea(1), Policy.random(2)):
        tally = tally_for(name)
        routing = call(
            name,
            given,
            policy,
            router=Router(K, scoring="sigmoid", bias=on_device(name, bias)),
            tally=tally,
        )
        assert routing.weights[0, 1] > 0.9 or policy.name == "random"
        assert MASS_UNIT < int(tally.sums[0, 3]) <= int(tally.sums[0, 1]) * MASS_UNIT


@pytest.mark.parametrize("make", [HostTally, Tally], ids=["host", "device"])
def test_a_tally_bounds_what_it_is_told(make: Any) -> None:
    tally = make([0], N, 2) if make is HostTally else make([0], N, 2, CPU)
    kept = torch.tensor([NAN, INF, -1.0, 1e30, 0.5, 0.5])
    used = torch.ones(6, 2, dtype=torch.bool)
    used[0], used[5] = False, False
    vanilla = torch.tensor([[-1, -1], [0, 1], [0, 1], [0, 1], [2, 3], [9, 9]])
    tally.add_routed(0, torch.ones(N, dtype=torch.bool), vanilla, used, used, kept, 5)
    assert tally.sums[0].tolist() == [5, 8, 0, 2 * MASS_UNIT + 2 * MASS_UNIT + MASS_UNIT // 2]
    assert tally.vanilla[0].nonzero().tolist() == [[4]]
    assert tally.vanilla_busiest[0].nonzero().tolist() == [[4]]


@pytest.mark.parametrize("make", [HostTally, Tally], ids=["host", "device"])
@pytest.mark.parametrize(
    ("real", "tokens"), [(-3, 0), (9, 4), (torch.tensor(-3), 0), (torch.tensor(9), 4)]
)
def test_a_vanilla_step_has_no_more_tokens_than_rows(
    make: Any, real: int | torch.Tensor, tokens: int
) -> None:
    tally = make([0], N, 2) if make is HostTally else make([0], N, 2, CPU)
    tally.add_vanilla(0, torch.arange(8).view(4, 2), real)
    assert tally.sums[0].tolist() == [tokens, 2 * tokens, 0, tokens * MASS_UNIT]
    assert tally.unique[0].nonzero().tolist() == [[2 * tokens]]


@every_router
@pytest.mark.parametrize(("real", "tokens"), [(-2, 0), (99, 6)])
def test_real_rows_are_at_most_all(name: str, real: int, tokens: int) -> None:
    """Read beyond the logits, a count that is wrong would otherwise take whatever lies behind
    them."""
    given = logits(7)[:6]
    policy = Policy.oea("1:4,6:2,7:1")
    tallies = tally_for(name), tally_for(name)
    expected = call(name, given, policy, num_real=tokens, tally=tallies[0])
    counts: list[int | torch.Tensor] = [real]
    if name in ("eager", "fused"):
        counts.append(torch.tensor(real, dtype=torch.int32, device=DEVICE))
    for count in counts:
        tallies[1].data.zero_()
        ours = call(name, given, policy, num_real=count, tally=tallies[1])
        assert all(torch.equal(a, b) for a, b in zip(ours, expected, strict=True))
        assert torch.equal(tallies[1].data, tallies[0].data)


@pytest.mark.parametrize("name", ["eager", "fused"])
def test_with_knobs_and_counts_on_the_device(name: str) -> None:
    """As a captured graph reads them."""
    knobs, real = Knobs({0: K}, N, DEVICE), torch.tensor(8, dtype=torch.int32, device=DEVICE)
    given = logits(8, 3)
    given[2], given[6, 1] = NAN, INF
    for of in ("vanilla", "scheduled", "p", "random", "one budget"):
        knobs.write(POLICIES[of])
        ours = call(name, given, knobs, num_real=real)
        expected = call("reference", given, POLICIES[of])
        assert torch.equal(ours.ids, expected.ids)
        assert torch.equal(ours.pool, expected.pool)
        torch.testing.assert_close(
            ours.weights, expected.weights, rtol=1e-5, atol=1e-7, equal_nan=True
        )


def test_many_steps_at_once_break_alone() -> None:
    given = torch.stack([logits(5, seed) for seed in range(3)])
    given[1, 2] = NAN
    together = route(given, Policy.oea(2), Router(K))
    for step in range(3):
        alone = route(given[step], Policy.oea(2), Router(K))
        assert torch.equal(together.ids[step], alone.ids)
        assert torch.equal(together.pool[step], alone.pool)
        assert bool(together.weights[step].isnan().any()) == (step == 1)
        assert math.isclose(float(together.weights[step, 0].sum()), 1.0, rel_tol=1e-5)
