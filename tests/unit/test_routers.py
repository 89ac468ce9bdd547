"""Every kind of router, floors that differ by row, shares and mixtures: the compiled loop and eager
are the reference, and the reference does what its words say."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from oea_server.routing import Policy, Router, eager, host
from oea_server.routing.contract import SCORINGS
from oea_server.routing.host import reference
from oea_server.routing.knobs import Knobs
from oea_server.routing.placement import contiguous
from oea_server.routing.tally import HostTally, Tally
from tests.unit.test_routing_reference import assert_same, logits

CPU = torch.device("cpu")
POLICIES = {
    "vanilla": Policy.vanilla(),
    "random": Policy.random(5),
    "pruned": Policy.pruned(2),
    "oea": Policy.oea(2),
    "share": Policy.oea(3, share=0.2),
    "share, mix": Policy.oea(4, share=0.13, mix=0.5),
    "mix 0": Policy.oea(1, mix=0.0),
    "p, share, reach": Policy.oea(3, p=0.4, share=0.1, max_rank=7, mix=0.3),
    "drafts": Policy.oea(3, draft_k0=1),
    "drafts, share": Policy.oea(4, share=0.05, mix=0.5, draft_k0=2),
    "k_max": Policy.oea(1, k_max=2, share=0.3),
    "fill": Policy.oea(1, pool="fill", ranks=4, share=0.5),
    "budget": Policy.oea(2, pool="budget", rank_budget=3, ranks=4, mix=0.5),
}
SHAPES = {"32, 4": (32, 4), "60, 6": (60, 6), "96, 8": (96, 8)}


def router(num_experts: int, k: int, scoring: Any, biased: bool, groups: int, score: Any) -> Router:
    bias = (
        torch.randn(num_experts, generator=torch.Generator().manual_seed(9)) * 0.3
        if biased
        else None
    )
    kept = max(1, groups // 2)
    return Router(k, biased, scoring, bias, groups, kept, score, 2.5 if biased else 1.0)


def rows(batch: int, seed: int) -> dict[str, Any]:
    """What may differ by row: everything, or nothing."""
    dice = torch.Generator().manual_seed(seed)
    guesses = torch.randint(-1, 3, (batch,), generator=dice)
    return (
        {},
        {"num_real": max(batch - 2, 0)},
        {"row_k0": torch.randint(-3, 4, (batch,), generator=dice)},
        {
            "num_real": torch.rand(batch, generator=dice) < 0.7,
            "row_k0": torch.randint(-8, 9, (batch,), generator=dice),
        },
        {"drafts": guesses},
        {"drafts": guesses, "num_real": torch.rand(batch, generator=dice) < 0.8},
        {
            "drafts": torch.where(
                guesses < 0, ~torch.randint(0, 1 << 62, (batch,), generator=dice), guesses
            )
        },
    )[seed % 7]


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("scoring", SCORINGS)
@pytest.mark.parametrize(
    ("biased", "groups", "score"),
    [(False, 1, "max"), (True, 1, "max"), (True, 4, "top2"), (False, 4, "max"), (False, 4, "top2")],
)
def test_the_loop_and_eager_are_the_reference(
    name: str, scoring: Any, biased: bool, groups: int, score: Any
) -> None:
    policy = POLICIES[name]
    seeds = itertools.count(hash((name, scoring, biased, groups)) % 7)
    for (num_experts, k), ties in zip(SHAPES.values(), (False, True, False), strict=True):
        asked = router(num_experts, k, scoring, biased, groups, score)
        for batch, dtype in ((1, torch.float32), (7, torch.bfloat16), (13, torch.float32)):
            seed = next(seeds)
            given, options = logits(batch, num_experts, dtype, ties, seed), rows(batch, seed)
            tallies: list[Any] = [HostTally([0], num_experts, 4) for _ in range(2)]
            tallies.append(Tally([0], num_experts, 4, CPU))
            expected = reference(given, policy, asked, **options, tally=tallies[0])
            assert_same(host.route(given, policy, asked, **options, tally=tallies[1]), expected)
            assert_same(eager.route(given, policy, asked, **options, tally=tallies[2]), expected)
            for tally in tallies[1:]:
                assert torch.equal(tally.data[:, :-1], tallies[0].data[:, :-1])
                assert int((tally.sums[0, 3] - tallies[0].sums[0, 3]).abs()) <= 2 * batch


@pytest.mark.parametrize("name", POLICIES)
def test_knobs_on_the_device_hold_all_of_it(name: str) -> None:
    policy, asked = POLICIES[name], router(64, 8, "sigmoid", True, 8, "top2")
    knobs, place = Knobs({3: 8}, 64, CPU), contiguous(64, policy.ranks, CPU)
    knobs.write(policy)
    given, drafts = (
        logits(9, 64, torch.float32, False, 1),
        torch.tensor([0, 1, 2, 0, -1, 0, 1, 2, 0]),
    )
    for real in (9, 3, 1, 0):
        for more in ({}, {"drafts": drafts}, {"row_k0": drafts.clamp(min=0)}):
            options: dict[str, Any] = {"layer": 3, "placement": place, **more}
            if policy.k_max is not None:
                continue  # the table holds it, the width of the answer does not
            ours = eager.route(given, knobs, asked, num_real=torch.tensor(real), **options)
            assert_same(ours, reference(given, policy, asked, num_real=real, **options))


def test_a_row_has_the_floor_that_it_asks_for() -> None:
    given, k = logits(6, 64, torch.float32, False, 3), 8
    own = given.topk(k, dim=1).indices
    asked = torch.tensor([0, 1, 5, 8, 99, 0])
    routing = reference(given, Policy.oea(2, share=0.99), Router(k), row_k0=asked)
    floors = [own[row, :floor] for row, floor in enumerate((1, 1, 5, 8, 8, 1))]
    assert set(torch.cat(floors).tolist()) == set(routing.pool.nonzero().flatten().tolist())
    for row, floor in enumerate(floors):
        assert torch.equal(routing.ids[row, : len(floor)].long(), floor)


@pytest.mark.parametrize(
    ("policy", "floors"),
    [
        (Policy.oea(4, draft_k0=2), (4, 2, 6, 4, 1, 8)),
        (Policy.oea(8, share=0.99, draft_k0=2), (1, 1, 6, 3, 1, 8)),
        (Policy.oea(8, draft_k0=2), (8, 2, 6, 8, 2, 8)),
        (Policy.vanilla(), (8,) * 6),
    ],
)
def test_what_a_row_asks_for_holds_for_drafts_whatever_they_are_guaranteed(
    policy: Policy, floors: tuple[int, ...]
) -> None:
    given, asked = logits(6, 64, torch.float32, False, 3), torch.tensor([0, 0, -6, -3, 1, -99])
    own, drafts = given.topk(8, dim=1).indices, torch.tensor([0, 1, 2, 0, 1, 2])
    routing = reference(given, policy, Router(8), row_k0=asked, drafts=drafts)
    guaranteed = [own[row, :floor] for row, floor in enumerate(floors)]
    assert set(torch.cat(guaranteed).tolist()) == set(routing.pool.nonzero().flatten().tolist())
    for row, floor in enumerate(guaranteed):
        assert set(floor.tolist()) <= set(routing.ids[row].tolist())


def test_a_row_has_the_floor_that_it_asks_for_besides() -> None:
    given, k = logits(6, 64, torch.float32, False, 3), 8
    own = given.topk(k, dim=1).indices
    for policy, floors in (
        (Policy.oea(4), (4, 4, 4, 5, 8, 8)),
        (Policy.oea(8, share=0.99), (1, 1, 3, 5, 8, 8)),
        (Policy.oea(4, p=0.001), (1, 1, 3, 5, 8, 8)),
        (Policy.vanilla(), (8,) * 6),
    ):
        routing = reference(given, policy, Router(k), row_k0=torch.tensor([0, -1, -3, -5, -8, -99]))
        guaranteed = [own[row, :floor] for row, floor in enumerate(floors)]
        assert set(torch.cat(guaranteed).tolist()) == set(routing.pool.nonzero().flatten().tolist())
        for row, floor in enumerate(guaranteed):
            assert torch.equal(routing.ids[row, : len(floor)].long(), floor)


def test_vanilla_gives_no_row_less() -> None:
    given, asked = logits(5, 32, torch.float32, False, 6), torch.tensor([1, 2, -1, 0, 3])
    vanilla = reference(given, Policy.vanilla(), Router(4))
    for policy in (Policy.vanilla(), Policy.oea(2, min_batch=6), Policy.oea("1:4,6:2")):
        assert_same(reference(given, policy, Router(4), row_k0=asked), vanilla)


def test_drafts_are_guaranteed_fewer_and_tokens_as_many_as_ever() -> None:
    given, drafts = (
        logits(8, 64, torch.float32, False, 3),
        torch.tensor([0, 1, 2, 3, 0, -1, -1, -1]),
    )
    own = given.topk(8, dim=1).indices
    for k0, draft_k0, guaranteed in ((4, 2, 2), (3, 8, 3)):  # never more than k0
        policy = Policy.oea(k0, draft_k0=draft_k0)
        routing = reference(given, policy, Router(8), drafts=drafts)
        floors = [
            own[row, : k0 if depth == 0 else guaranteed]
            for row, depth in enumerate(drafts.tolist())
        ]
        assert set(torch.cat(floors).tolist()) == set(routing.pool.nonzero().flatten().tolist())
        for row, floor in enumerate(floors):
            assert set(floor.tolist()) <= set(routing.ids[row].tolist())
    # a lone request, however many drafts it has
    assert policy.is_vanilla(1, 0, k=8, num_experts=64)
    assert not Policy.oea(8, draft_k0=2).is_vanilla(2, 0, k=8, num_experts=64)


def test_a_floor_above_the_limit_is_kept() -> None:
    given = logits(4, 32, torch.float32, False, 4)
    routing = reference(
        given, Policy.oea(1, k_max=2, max_rank=3), Router(6), row_k0=torch.tensor([0, 6, 2, 0])
    )
    assert (
        ((routing.weights > 0).sum(dim=1) == torch.tensor([2, 6, 2, 2]))
        .logical_or(torch.tensor([True, False, False, True]))
        .all()
    )
    assert torch.equal(routing.ids[1].long(), given[1].topk(6).indices)


def test_a_share_guarantees_those_that_hold_more_and_the_first() -> None:
    given = logits(9, 64, torch.float32, False, 5)
    scores, own = given.softmax(dim=1).topk(8, dim=1)
    part = scores / scores.sum(dim=1, keepdim=True)
    for share in (0.0, 0.1, 0.3, 0.9):
        floors = [
            own[row, rank]
            for row in range(9)
            for rank in range(4)
            if rank == 0 or part[row, rank] > share
        ]
        routing = reference(given, Policy.oea(4, share=share), Router(8))
        assert routing.pool.nonzero().flatten().tolist() == sorted({int(each) for each in floors})


def test_weights_are_divided_by_the_mixture() -> None:
    given = logits(9, 64, torch.float32, False, 6)
    scores = given.softmax(dim=1)
    own = scores.topk(8, dim=1).values.sum(dim=1, keepdim=True)
    for mix in (0.0, 0.25, 1.0):
        routing = reference(given, Policy.oea(2, mix=mix), Router(8, scale=3.0))
        held = scores.gather(1, routing.ids.long()) * (routing.weights > 0)
        expected = 3.0 * held / (mix * held.sum(dim=1, keepdim=True) + (1 - mix) * own)
        torch.testing.assert_close(routing.weights, expected, rtol=1e-5, atol=1e-7)
        as_scored = reference(
            given, Policy.oea(2, mix=mix), Router(8, renormalize=False, scale=3.0)
        )
        torch.testing.assert_close(as_scored.weights, 3.0 * held)


FORK = (0, -1, ~0b1, ~0b10)
"""A token, a guess at what follows it, and two at what follows that."""
VERIFIED = {
    name: POLICIES[name]
    for name in ("oea", "share, mix", "p, share, reach", "fill", "budget", "pruned")
}


@pytest.mark.parametrize("name", VERIFIED)
@pytest.mark.parametrize(
    "depths", [(0, 1, 2, 3), (0, -1, -1, -1), FORK], ids=["chain", "unknown tree", "tree"]
)
def test_no_row_depends_on_a_guess_that_does_not_lead_to_it(
    name: str, depths: tuple[int, ...]
) -> None:
    """Other guesses after a row (in a tree: beside it, too) change neither its experts nor their
    weights, in any request: over layers, what a neighbour took of them would come back."""
    policy, asked = VERIFIED[name], Router(6)
    drafts = torch.tensor(depths * 3)
    for seed, row in itertools.product(range(8), range(12)):
        given = logits(12, 32, torch.float32, False, seed)
        whole = reference(given, policy, asked, drafts=drafts)
        hidden = (
            (drafts > drafts[row]) if depths[1] > 0 else (drafts < 0) & (torch.arange(12) != row)
        )
        if depths == FORK and row % 4 > 1:
            hidden[row // 4 * 4 + 1] = False
        changed = torch.where(
            hidden[:, None], logits(12, 32, torch.float32, False, 100 + seed), given
        )
        for route in (reference, host.route, eager.route):
            again = route(changed, policy, asked, drafts=drafts)
            assert torch.equal(again.ids[row], whole.ids[row])
            torch.testing.assert_close(again.weights[row], whole.weights[row], rtol=1e-6, atol=0)


def test_tokens_are_routed_as_if_nothing_were_guessed() -> None:
    given, drafts = logits(12, 32, torch.float32, False, 3), torch.tensor([0, 1, 2] * 4)
    for policy in (Policy.oea("1:6,4:2,12:1"), Policy.oea(2, share=0.1, mix=0.5)):
        whole = reference(given, policy, Router(6), drafts=drafts)
        alone = reference(given[::3], policy, Router(6))
        assert torch.equal(whole.ids[::3], alone.ids)
        assert torch.equal(whole.weights[::3], alone.weights)
        floors = [given[row].topk(2).indices for row in range(12)]
        assert int(whole.pool.sum()) <= len(set(torch.cat(floors).tolist()))


def test_guesses_fill_from_others_of_their_depth_and_in_a_tree_from_tokens_and_ancestors() -> None:
    given = logits(8, 32, torch.float32, False, 4)
    floors = given.topk(2, dim=1).indices
    for depths in ((0, 1, 2, 3), (0, -1, -1, -1), FORK):
        drafts = torch.tensor(depths * 2)
        routing = reference(given, Policy.oea(2), Router(6), drafts=drafts)
        for row, depth in enumerate(drafts.tolist()):
            seen = [each for each in range(8) if each == row or 0 <= drafts[each] <= max(depth, 0)]
            if depths == FORK and row % 4 > 1:
                seen.append(row // 4 * 4 + 1)
            taken = routing.ids[row][routing.weights[row] > 0].tolist()
            pool = torch.zeros(32, dtype=torch.bool).index_fill(0, floors[seen].flatten(), True)
            assert (
                taken
                == given[row].where(pool, -torch.inf).topk(min(6, int(pool.sum()))).indices.tolist()
            )


def test_a_lone_request_of_many_rows_runs_vanilla() -> None:
    given, drafts = logits(5, 32, torch.float32, False, 7), torch.arange(5)
    vanilla = reference(given, Policy.vanilla(), Router(4))
    assert_same(
        reference(given, Policy.oea(1, share=0.5, mix=0.5), Router(4), drafts=drafts), vanilla
    )
    alone = reference(given, Policy.oea(1, min_batch=1), Router(4), drafts=drafts)
    assert int(alone.pool.sum()) < int(vanilla.pool.sum())


@pytest.mark.parametrize("number", ["nan", "inf", "-inf"])
def test_pad_rows_weigh_nothing_and_broken_ones_nan_under_a_mixture(number: str) -> None:
    given, asked = logits(6, 32, torch.float32, False, 8), Router(4)
    for row in (2, 5):
        given[row] = float(number)
    policy = Policy.oea(2, share=0.1, mix=0.5)
    expected = reference(given, policy, asked, num_real=5)
    assert expected.weights[2].isnan().all()
    assert not expected.weights[5].any()
    knobs = Knobs({0: 4}, 32, CPU)
    knobs.write(policy)
    for ours in (
        eager.route(given, policy, asked, num_real=5),
        eager.route(given, knobs, asked, num_real=5),
    ):
        assert torch.equal(ours.ids, expected.ids)
        torch.testing.assert_close(ours.weights, expected.weights, equal_nan=True)


def test_a_token_stays_inside_its_groups() -> None:
    asked = Router(4, scoring="sigmoid", bias=torch.zeros(64), groups=8, top_groups=2)
    for seed in range(5):
        given = logits(12, 64, torch.float32, False, seed)
        scores = given.sigmoid()
        groups = scores.view(12, 8, 8).topk(2, dim=2).values.sum(dim=2).topk(2, dim=1).indices
        for policy in (
            Policy.vanilla(),
            Policy.oea(1),
            Policy.random(3),
            Policy.oea(1, pool="budget", rank_budget=64),
        ):
            routing = reference(given, policy, asked)
            used = torch.where(routing.weights > 0, routing.ids.long() // 8, groups[:, :1])
            assert (used[:, :, None] == groups[:, None, :]).any(dim=2).all()


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"k": 0}, "k=0 is below 1"),
        ({"k": 17}, r"k=17 is outside 1\.\.16"),
        ({"scoring": "tanh"}, "scoring=tanh is none of softmax, sigmoid, sqrtsoftplus"),
        ({"groups": 0}, "groups=0 is below 1"),
        ({"groups": 3}, "groups=3: 16 experts do not divide into them"),
        ({"groups": 4, "top_groups": 5}, r"top_groups=5 is outside 1\.\.4"),
        ({"groups": 8, "top_groups": 1}, "k=4 is above the 2 experts of top_groups=1"),
        ({"group_score": "mean"}, "group_score=mean is none of top2, max"),
        ({"scale": 0.0}, "scale=0.0 is not above 0"),
        ({"scale": float("nan")}, "scale=nan is not above 0"),
        ({"bias": torch.zeros(5)}, "bias has 5 numbers for 16 experts"),
    ],
)
def test_a_router_that_does_not_fit_says_which_field(fields: dict[str, Any], why: str) -> None:
    for route in (reference, host.route, eager.route):
        with pytest.raises(ValueError, match=why):
            route(torch.zeros(2, 16), Policy.vanilla(), Router(**{"k": 4, **fields}))


@pytest.mark.parametrize(
    ("rows_of", "why"),
    [
        (
            {"row_k0": torch.zeros(3, dtype=torch.int32)},
            r"row_k0 is torch.int32 \[3\], not integers \[2\]",
        ),
        ({"row_k0": torch.zeros(2)}, r"row_k0 is torch.float32 \[2\], not integers"),
        (
            {"drafts": torch.zeros(2, 1, dtype=torch.int64)},
            r"drafts is torch.int64 \[2, 1\], not integers",
        ),
        ({"num_real": torch.ones(3, dtype=torch.bool)}, r"num_real is a mask \[3\], not \[2\]"),
    ],
)
def test_rows_that_do_not_fit_are_refused(rows_of: dict[str, Any], why: str) -> None:
    for route in (reference, host.route, eager.route):
        with pytest.raises(ValueError, match=why):
            route(torch.zeros(2, 16), Policy.vanilla(), Router(4), **rows_of)


@pytest.mark.parametrize(
    ("name", "value"), [("share", 1.0), ("share", -0.1), ("mix", 1.1), ("mix", -0.1)]
)
def test_knobs_out_of_bounds_are_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name}={value} is outside 0 <= {name}"):
        Policy.oea(2, share=value) if name == "share" else Policy.oea(2, mix=value)


def test_each_experts_weight_is_multiplied_after_it_was_divided() -> None:
    given, by = (
        logits(6, 32, torch.float32, False, 8),
        torch.rand(32, generator=torch.Generator().manual_seed(3)) + 0.5,
    )
    plain, scaled = Router(4, scale=2.0), Router(4, scale=2.0, expert_scale=by.bfloat16())
    for route in (reference, host.route, eager.route):
        before, after = (
            route(given, Policy.oea(2, share=0.1, mix=0.5), each) for each in (plain, scaled)
        )
        assert torch.equal(before.ids, after.ids)
        expected = before.weights * by.bfloat16().float()[before.ids.long()]
        torch.testing.assert_close(after.weights, expected, rtol=1e-6, atol=0)
    with pytest.raises(ValueError, match="expert_scale has 8 numbers for 32 experts"):
        reference(given, Policy.vanilla(), Router(4, expert_scale=by[:8]))


@pytest.mark.parametrize("name", [name for name in POLICIES if POLICIES[name].ranks == 1])
@pytest.mark.parametrize("seed", range(6))
def test_experts_that_compute_nothing_are_always_awake_and_never_loaded(
    name: str, seed: int
) -> None:
    given, policy = logits(9, 32, torch.float32, False, seed), POLICIES[name]
    asked = Router(4, scoring="sigmoid", bias=torch.linspace(-0.3, 0.3, 32), zero_experts=8)
    tallies = [HostTally([0], 24, 1) for _ in range(3)]
    expected = reference(given, policy, asked, tally=tallies[0], **rows(9, seed))
    for route, tally in ((host.route, tallies[1]), (eager.route, tallies[2])):
        assert_same(route(given, policy, asked, tally=tally, **rows(9, seed)), expected)
        assert torch.equal(tally.data[:, :-1], tallies[0].data[:, :-1])
    assert not expected.pool[24:].any()
    assert tallies[0].unique[0, int(expected.pool.sum())] == 1
    taken = expected.ids[expected.weights > 0].unique()
    assert set(taken.tolist()) <= {*expected.pool.nonzero().flatten().tolist(), *range(24, 32)}
    if name == "oea" and "drafts" not in rows(9, seed):
        own = reference(given, Policy.vanilla(), asked, **rows(9, seed)).ids
        for row in (expected.weights > 0).any(dim=1).nonzero().flatten().tolist():
            best = {expert for expert in own[row].tolist() if expert >= 24}
            # which cost nothing, so that nobody goes without
            assert best <= set(expected.ids[row].tolist())


@pytest.mark.parametrize(
    ("fields", "policy", "problem"),
    [
        ({"zero_experts": -1}, Policy.vanilla(), "zero_experts=-1 is below 0"),
        ({"zero_experts": 16}, Policy.vanilla(), "zero_experts=16 leaves none of 16 experts"),
        (
            {"zero_experts": 4},
            Policy.oea(2, ranks=2, pool="fill"),
            "ranks=2: experts that compute nothing lie on no rank",
        ),
    ],
)
def test_wrong_numbers_of_experts_that_compute_nothing(
    fields: dict[str, Any], policy: Policy, problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        reference(torch.zeros(2, 16), policy, Router(**{"k": 4, **fields}))
