"""Pools that know the ranks: the implementations agree, and what must hold holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from oea_server.routing import Policy, Router, Routing, fused, host
from oea_server.routing.eager import Rows, floor, pool_of, route
from oea_server.routing.host import reference
from oea_server.routing.knobs import Knobs
from oea_server.routing.placement import Placement, contiguous
from oea_server.routing.ranking import sort_keys
from oea_server.routing.tally import HostTally, Tally
from tests.unit.test_routing_reference import DEVICE, assert_same, logits

Route = Callable[..., Routing]
CPU = torch.device("cpu")


def mapped(num_experts: int, ranks: int, extra: int, seed: int = 0) -> Placement:
    """Experts in any order over the ranks, `extra` copies of some of them besides, on any rank."""
    dice = torch.Generator().manual_seed(seed)
    slots = -(-(num_experts + extra) // ranks)
    order = torch.randperm(ranks * slots, generator=dice)
    copies: list[list[int]] = [[int(each)] for each in order[:num_experts]]
    for each in order[num_experts : num_experts + extra]:
        copies[int(torch.randint(num_experts, (), generator=dice))].append(int(each))
    most = max(map(len, copies))
    rows = [each + [-1] * (most - len(each)) for each in copies]
    physical = torch.tensor(rows, dtype=torch.int64 if seed % 2 else torch.int32)
    return Placement(ranks, slots, physical, torch.zeros(num_experts, dtype=torch.int32))


def there(place: Placement) -> Placement:
    """A copy on the device of the fused launch."""
    return place._replace(
        physical=place.physical.to(DEVICE), home=torch.zeros_like(place.home, device=DEVICE)
    )


def placements(num_experts: int, ranks: int) -> list[Placement]:
    """Equal shares, a map that leaves ranks uneven room, and copies."""
    return [
        contiguous(num_experts, ranks, CPU),
        mapped(num_experts, ranks, 0, 2),
        mapped(num_experts, ranks, 2 * ranks, 1),
    ]


POLICIES = [
    Policy.oea(1, pool="fill"),
    Policy.oea(3, pool="fill", p=0.5),
    Policy.oea(2, pool="fill", k_max=3, max_rank=5),
    Policy.oea(3, pool="budget", rank_budget=2),
    Policy.oea(1, pool="budget", rank_budget=6),
    Policy.oea("1:4,4:1", pool="fill"),
    Policy.oea(2),
]


@pytest.mark.parametrize("ranks", [1, 2, 8, 16])
@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: f"{policy.pool}-{policy.k0}")
@pytest.mark.parametrize("ties", [False, True], ids=["distinct", "ties"])
def test_eager_and_host_are_the_reference(ranks: int, policy: Policy, ties: bool) -> None:
    for number, place in enumerate(placements(64, ranks)):
        dtype = torch.bfloat16 if number % 2 else torch.float32
        tallies: list[Any] = [HostTally([0], ranks * place.slots, ranks) for _ in range(3)]
        tallies.append(Tally([0], ranks * place.slots, ranks, CPU))
        for seed, (batch, real) in enumerate(((0, None), (1, 1), (9, 7), (12, None))):
            given_ = logits(batch, 64, dtype, ties, seed)
            options: dict[str, Any] = {"router": Router(4), "num_real": real, "placement": place}
            expected = reference(given_, policy, **options, tally=tallies[0])
            home = place.home.clone()
            assert_same(host.route(given_, policy, **options, tally=tallies[1]), expected)
            assert torch.equal(place.home, home)
            assert_same(route(given_, policy, **options, tally=tallies[2]), expected)
            assert torch.equal(place.home, home)
            route(given_, policy, **options, tally=tallies[3])
        for tally in tallies[1:]:
            assert torch.equal(tally.data[:, :-1], tallies[0].data[:, :-1])


@pytest.mark.parametrize("ranks", [1, 2, 8, 16])
@pytest.mark.parametrize("number", range(6))
def test_fused_is_the_reference(ranks: int, number: int) -> None:
    """Each rank count with each placement and each policy, if not with each pair of them: the
    interpreter is slow."""
    policy, place = POLICIES[(number + ranks.bit_length()) % 6], placements(64, ranks)[number % 3]
    tallies = (
        HostTally([0], ranks * place.slots, ranks),
        Tally([0], ranks * place.slots, ranks, DEVICE),
    )
    given_ = logits(36, 64, torch.bfloat16, bool(number % 2), number)
    expected = reference(given_, policy, Router(4), num_real=34, placement=place, tally=tallies[0])
    on_device = there(place)
    ours = fused.route(
        given_.to(DEVICE), policy, Router(4), num_real=34, placement=on_device, tally=tallies[1]
    )
    assert_same(ours, expected)
    assert torch.equal(on_device.home.cpu(), place.home)
    assert torch.equal(tallies[1].data[:, :-1].cpu(), tallies[0].data[:, :-1])


@pytest.mark.parametrize("router", [host.route, fused.route], ids=["host", "fused"])
@pytest.mark.parametrize("biased", [False, True])
def test_sigmoid_routers(router: Route, biased: bool) -> None:
    device = DEVICE if router is fused.route else CPU
    bias = torch.randn(64, generator=torch.Generator().manual_seed(2)) if biased else None
    policy = Policy.oea(2, pool="fill", ranks=8)
    for seed in range(4):
        given_ = logits(12, 64, torch.float32, bool(seed % 2), seed)
        asked = Router(6, scoring="sigmoid", bias=bias)
        expected = reference(given_, policy, asked)
        there_ = replace(asked, bias=None if bias is None else bias.to(device))
        assert_same(router(given_.to(device), policy, there_), expected)
        assert_same(route(given_, policy, asked), expected)


@pytest.mark.parametrize("router", [route, fused.route], ids=["eager", "fused"])
def test_knobs_on_the_device_are_followed_at_the_next_call(router: Route) -> None:
    device = DEVICE if router is fused.route else CPU
    knobs = Knobs({0: 8}, 64, device)
    given_ = logits(12, 64, torch.float32, False, 5)
    place = contiguous(64, 8, device)
    for policy in (
        *POLICIES[3:],
        Policy.vanilla(),
        Policy.oea(2, pool="budget", rank_budget=7),
        Policy.random(3),
    ):
        knobs.write(policy)
        expected = reference(given_, policy, Router(8), placement=contiguous(64, 8, CPU))
        assert_same(router(given_.to(device), knobs, Router(8), placement=place), expected)
        if policy.pool == "budget":  # a bound on T, where nothing says that there are ranks
            assert_same(
                router(given_.to(device), knobs, Router(8)), reference(given_, policy, Router(8))
            )


@st.composite
def cases(draw: st.DrawFn) -> tuple[torch.Tensor, Policy, int, int, Placement]:
    num_experts, k = draw(st.sampled_from([(8, 2), (64, 8), (128, 8)]))
    batch = draw(st.integers(0, 70))
    ranks = draw(st.sampled_from([1, 2, 4, 8]))
    spread = draw(st.sampled_from([0.0, 0.3, 1.0, 4.0]))
    given_ = (
        torch.randn(
            batch, num_experts, generator=torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
        )
        * spread
    )
    if draw(st.booleans()):
        given_ = given_.round()
    extra = draw(st.sampled_from([0, 0, ranks, 3 * ranks]))
    place = (
        mapped(num_experts, ranks, extra, draw(st.integers(0, 99)))
        if extra
        else contiguous(num_experts, ranks, CPU)
    )
    budget = draw(st.integers(1, num_experts))
    pool, room = draw(st.sampled_from([("fill", None), ("budget", budget)]))
    policy = Policy.oea(draw(st.integers(1, k)), pool=pool, rank_budget=room, min_batch=1)  # type: ignore[arg-type]
    return given_, policy, k, draw(st.integers(0, batch)), place


@settings(max_examples=200, deadline=None, derandomize=True)
@given(cases())
def test_properties(case: tuple[torch.Tensor, Policy, int, int, Placement]) -> None:
    given_, policy, k, real, place = case
    routing = host.route(given_, policy, Router(k), num_real=real, placement=place)
    floors = union_of_floors(given_[:real], policy, k)
    home, ranks = place.home.long(), place.ranks
    load, before = (
        torch.bincount(home[each] // place.slots, minlength=ranks)
        for each in (routing.pool, floors)
    )
    assert bool((routing.pool | ~floors).all())  # every floor is kept
    if policy.pool == "fill":
        assert int(load.max()) == int(before.max())  # no rank reads more than the busiest did
    else:
        assert policy.rank_budget is not None
        # only floors go beyond the budget
        assert bool((load <= before.clamp(min=policy.rank_budget)).all())
    # where its weights are
    assert bool(((place.physical == home[:, None]) & (place.physical >= 0)).any(dim=1).all())
    read = torch.zeros_like(routing.pool)
    read[routing.ids[:real][routing.weights[:real] > 0].long()] = True
    assert torch.equal(read, routing.pool)  # whatever is in the pool is somebody's
    assert not bool(routing.weights[real:].any())
    assert torch.allclose(routing.weights[:real].sum(dim=1), torch.ones(real), atol=1e-5)


def union_of_floors(given_: torch.Tensor, policy: Policy, k: int) -> torch.Tensor:
    keys = sort_keys(given_.float())
    best = keys.topk(k, dim=-1).values
    numbers = policy.numbers(len(given_), 0, k=k, num_experts=given_.shape[1])
    everyone, mass = Rows(torch.ones(len(given_), 1, dtype=torch.bool)), torch.ones(len(given_), 1)
    return pool_of(
        keys, best, floor(best, given_.softmax(dim=-1), mass, numbers, "softmax", everyone)
    )


@pytest.mark.parametrize("router", [route, host.route, reference, fused.route])
def test_on_one_rank_fill_is_union(router: Route) -> None:
    for seed in range(5):
        given_ = logits(11, 64, torch.bfloat16, False, seed).to(
            DEVICE if router is fused.route else CPU
        )
        for k0 in (1, 3):
            filled, plain = (
                router(given_, Policy.oea(k0, pool=pool), Router(8)) for pool in ("fill", "union")
            )
            assert all(torch.equal(a, b) for a, b in zip(filled, plain, strict=True))


def test_many_steps_at_once_are_routed_each_by_itself() -> None:
    given_ = torch.randn(3, 2, 9, 64, generator=torch.Generator().manual_seed(1))
    for policy in (
        Policy.oea(2, pool="fill", ranks=8),
        Policy.oea(1, pool="budget", rank_budget=4, ranks=4),
    ):
        together = route(given_, policy, Router(4))
        for i in range(3):
            for j in range(2):
                alone = route(given_[i, j], policy, Router(4))
                assert torch.equal(together.ids[i, j], alone.ids)
                assert torch.equal(together.pool[i, j], alone.pool)


def test_a_copy_on_an_idle_rank_takes_the_load_off_a_busy_one() -> None:
    # experts 0 to 3 on rank 0, 4 to 7 on rank 1, which also has copies of 2 and 3
    rows = [[0, -1], [1, -1], [2, 10], [3, 11], [6, -1], [7, -1], [8, -1], [9, -1]]
    place = Placement(2, 6, torch.tensor(rows), torch.zeros(8, dtype=torch.int32))
    given_ = torch.full((4, 8), -9.0)
    # the first choices: all on rank 0, two of them on rank 1 too
    given_[torch.arange(4), torch.arange(4)] = 5.0
    routing = route(given_, Policy.oea(1), Router(2), placement=place)
    assert routing.pool.nonzero().flatten().tolist() == [0, 1, 2, 3]
    assert place.home[:4].tolist() == [0, 1, 10, 11]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Policy.oea(3, pool="some"), "pool=some is none of union, fill, budget"),  # type: ignore[arg-type]
        (
            lambda: Policy.oea(3, pool="budget"),
            "rank_budget=None: pool=budget needs a number of experts per rank",
        ),
        (lambda: Policy.oea(3, pool="budget", rank_budget=0), "rank_budget=0 is below 1"),
        (lambda: Policy.oea(3, ranks=0), "ranks=0 is below 1"),
        (
            lambda: route(
                torch.zeros(2, 8), Policy.oea(1, pool="budget", rank_budget=9), Router(2)
            ),
            "rank_budget=9 is above the model's 8 experts",
        ),
        (
            lambda: route(torch.zeros(2, 8), Policy.oea(1, ranks=3), Router(2)),
            "ranks=3: 8 experts do not divide over them",
        ),
    ],
)
def test_bad_arguments_name_the_knob(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_a_placement_that_is_first_asked_for_in_inference_mode_is_written_to_outside_it() -> None:
    with torch.inference_mode():
        place = contiguous(26, 13, CPU)  # which no other test asks for
    place.home.zero_()
