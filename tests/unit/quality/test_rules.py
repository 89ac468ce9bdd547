"""Floors, pools and weights that the server does not offer: what each promises, on random steps."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from oea_server.lab.quality import rules
from oea_server.lab.quality.arms import ArmError, parse
from oea_server.lab.quality.routed import Routers
from oea_server.routing import Policy, Router
from oea_server.routing.eager import pool_of, route

K, N = 4, 16
BIASED = Router(
    K, scoring="sigmoid", bias=torch.linspace(-0.3, 0.3, N), groups=4, top_groups=2, scale=2.5
)
FOUND = Routers([], [Router(K)], N)


@pytest.fixture(params=[0, 1, 2])
def logits(request: pytest.FixtureRequest) -> torch.Tensor:
    return torch.randn(3, 5, 6, N, generator=torch.Generator().manual_seed(request.param)) * 2


def floors(step: rules.Step, floor: rules.Floor) -> torch.Tensor:
    return pool_of(step.keys, step.best, floor(step))


def test_many_steps_at_once_are_routed_as_each_alone(logits: torch.Tensor) -> None:
    for policy in (
        Policy.vanilla(),
        Policy.pruned(2),
        Policy.oea(2),
        Policy.oea(3, p=0.5, k_max=6, max_rank=9),
    ):
        together = route(logits, policy, Router(K))
        for group in range(3):
            for position in range(5):
                alone = route(logits[group, position], policy, Router(K))
                for many, one in zip(together, alone, strict=True):
                    assert torch.equal(many[group, position], one)


@pytest.mark.parametrize("k0", [1, 2, 4])
@pytest.mark.parametrize(
    "router", [Router(K), BIASED], ids=["softmax", "sigmoid, bias, groups and scale"]
)
def test_rules_of_oea_are_oea(logits: torch.Tensor, router: Router, k0: int) -> None:
    ours = rules.route(logits, router, rules.top(k0), rules.union, rules.chosen)
    served = route(logits, Policy.oea(k0), router)
    assert torch.equal(ours.pool, served.pool)
    assert torch.equal(ours.ids, served.ids)
    torch.testing.assert_close(ours.weights, served.weights)


@pytest.mark.parametrize(
    ("text", "apart"),
    [
        ("oea:4/share=0.3/mix=0.5", "share:0.3/mix=0.5"),
        ("oea:4/share=0.2", "share:0.2"),
        ("fill:2/ranks=4/share=0.3/mix=0.5", "fill:2/ranks=4/share=0.3/mix=0.5/power=4.0000001"),
    ],
)
def test_what_the_server_offers_is_the_rule_that_was_written_apart(
    logits: torch.Tensor, text: str, apart: str
) -> None:
    served, alone = (parse(each).chooser(FOUND)(logits, 0) for each in (text, apart))
    assert (served.by, alone.by) == ("host", "rules")
    assert torch.equal(served.pool, alone.pool)
    assert torch.equal(served.ids, alone.ids)
    torch.testing.assert_close(served.weights, alone.weights)


def test_a_share_guarantees_what_weighs(logits: torch.Tensor) -> None:
    step = rules.Step.of(logits, Router(K))
    floor = rules.shares_above(0.3)(step)
    assert floor[..., 0].all()
    assert torch.equal(floor[..., 1:], step.share[..., 1:] > 0.3)
    assert torch.equal(rules.shares_above(0.0)(step), torch.ones_like(floor))


@pytest.mark.parametrize("pool", [rules.vote(7, 2.0), rules.lynx(7)])
def test_a_vote_has_its_size_and_the_floors(logits: torch.Tensor, pool: rules.Pool) -> None:
    step = rules.Step.of(logits, Router(K))
    held = floors(step, rules.top(1))
    found = pool(step, held)
    assert (found | ~held).all()
    wanted = step.wanted(torch.ones_like(step.share)).gt(0).sum(dim=-1)
    assert torch.equal(found.sum(dim=-1), torch.maximum(held.sum(dim=-1), wanted.clamp(max=7)))


def test_a_vote_takes_the_most_wanted() -> None:
    logits = torch.full((1, 2, 6), -9.0)
    logits[0, 0, [0, 1, 2]] = torch.tensor([3.0, 2.0, 1.0])
    logits[0, 1, [3, 1, 4]] = torch.tensor([3.0, 2.0, 1.0])
    step = rules.Step.of(logits, Router(3))
    pool = rules.vote(3, 1.0)(step, floors(step, rules.top(1)))
    assert pool[0].nonzero().flatten().tolist() == [0, 1, 3]  # both want 1


@pytest.mark.parametrize("ranks", [2, 4, 8])
def test_filled_ranks_read_no_more_than_the_busiest_did(logits: torch.Tensor, ranks: int) -> None:
    step = rules.Step.of(logits, Router(K))
    held = floors(step, rules.top(2))
    found = rules.fill_ranks(ranks, 4.0)(step, held)
    before, after = (each.unflatten(-1, (ranks, -1)).sum(dim=-1) for each in (held, found))
    assert (found | ~held).all()
    assert torch.equal(after.amax(dim=-1), before.amax(dim=-1))
    assert after.sum() > before.sum()


def test_one_rank_has_no_free_room(logits: torch.Tensor) -> None:
    step = rules.Step.of(logits, Router(K))
    held = floors(step, rules.top(2))
    assert torch.equal(rules.fill_ranks(1, 4.0)(step, held), held)


def test_a_rank_budget_is_exceeded_by_floors_only(logits: torch.Tensor) -> None:
    step = rules.Step.of(logits, Router(K))
    held = floors(step, rules.top(1)).unflatten(-1, (4, -1)).sum(dim=-1)
    found = (
        rules.fill_ranks(4, 4.0, 2)(step, floors(step, rules.top(1)))
        .unflatten(-1, (4, -1))
        .sum(dim=-1)
    )
    assert (found <= held.clamp(min=2)).all()


def test_filled_ranks_are_the_servers(logits: torch.Tensor) -> None:
    for k0 in (1, 2):
        ours = rules.route(logits, Router(K), rules.top(k0), rules.fill_ranks(4, 4.0), rules.chosen)
        served = route(logits, Policy.oea(k0, pool="fill", ranks=4), Router(K))
        assert torch.equal(ours.pool, served.pool)
        assert torch.equal(ours.ids, served.ids)


def test_ranks_that_know_only_their_own_tokens(logits: torch.Tensor) -> None:
    split = parse("split:2/ranks=3").chooser(FOUND)(logits, 0)
    for rank in range(3):
        mine = slice(2 * rank, 2 * rank + 2)
        alone = route(logits[..., mine, :], Policy.oea(2), Router(K))
        assert torch.equal(split.ids[..., mine, :], alone.ids)
        assert (split.pool | ~alone.pool).all()


def test_more_experts_than_k_where_a_share_is_asked_for_them(logits: torch.Tensor) -> None:
    wide = parse("share:0.2/k_max=6").chooser(FOUND)(logits, 0)
    assert wide.ids.shape[-1] == 6
    assert ((wide.weights > 0).sum(dim=-1) <= 6).all()
    assert ((wide.weights > 0).sum(dim=-1) > K).any()


def test_weights_between_two_masses(logits: torch.Tensor) -> None:
    def total(weigh: rules.Weigh) -> torch.Tensor:
        return rules.route(logits, Router(K), rules.top(1), rules.union, weigh).weights.sum(dim=-1)

    torch.testing.assert_close(total(rules.chosen), torch.ones(3, 5, 6))
    assert (total(rules.between(0.0)) <= 1 + 1e-6).all()  # what is kept of vanilla's mass
    torch.testing.assert_close(total(rules.between(1.0)), torch.ones(3, 5, 6))
    ordered = [total(rules.between(alpha)).mean() for alpha in (0.0, 0.5, 1.0)]
    assert all(a < b for a, b in pairwise(ordered))
    assert (total(rules.as_scored) < total(rules.between(0.0))).all()


@pytest.mark.parametrize(
    "text",
    [
        "vanilla",
        "pruned:2",
        "oea:2",
        "oea:2/k_max=6",
        "share:0.2",
        "vote:7",
        "lynx:7",
        "oea:2/share=0.1/mix=0.5",
    ],
)
def test_arms_choose(logits: torch.Tensor, text: str) -> None:
    arm = parse(text)
    found = arm.chooser(FOUND)(logits, 0)
    assert found.weights.shape == (3, 5, 6, 6 if "k_max" in text else K)
    assert arm.label == text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("best", "best: is none of vanilla, pruned, oea"),
        ("oea", "oea: oea needs a number"),
        ("vanilla:3", "vanilla takes no number"),
        ("oea:3/depth=2", "oea has no depth; it has share, mix, p, k_max"),
        ("oea:three", "oea:three: k0=three is not a whole number"),
        ("oea:3/max_rank=2", "max_rank=2 is below k0=3"),
    ],
)
def test_a_bad_arm_is_one_line(text: str, says: str) -> None:
    with pytest.raises(ArmError) as error:
        parse(text)
    assert says in str(error.value)
    assert "\n" not in str(error.value)
