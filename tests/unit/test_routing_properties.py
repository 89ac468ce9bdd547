"""What must hold for every routing, whatever the logits; batches up to 200 rows."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from oea_server.routing import Policy, Router, Routing, fused, host
from oea_server.routing.eager import route
from oea_server.routing.ranking import random_keys

SHAPES = [(8, 1), (8, 2), (8, 8), (60, 2), (64, 8), (128, 1), (128, 2), (128, 8), (256, 8)]


@st.composite
def cases(draw: st.DrawFn, largest: int = 200) -> tuple[torch.Tensor, Policy, int, int, bool]:
    num_experts, k = draw(st.sampled_from(SHAPES))
    batch = draw(st.integers(0, largest))
    real = draw(st.integers(0, batch))
    seed = draw(st.integers(0, 2**31))
    logits = torch.randn(batch, num_experts, generator=torch.Generator().manual_seed(seed)) * draw(
        st.sampled_from([0.0, 0.1, 1.0, 10.0])
    )
    if draw(st.booleans()):
        logits = logits.round()
    logits = logits.to(draw(st.sampled_from([torch.float32, torch.bfloat16])))
    k0 = draw(st.integers(1, k))
    policy = draw(
        st.sampled_from(
            [
                Policy.vanilla(),
                Policy.random(seed % 97),
                Policy.pruned(k0),
                Policy.oea(k0),
                Policy.oea(k0, min_batch=1),
                Policy.oea(k0, p=0.5),
                Policy.oea(k0, max_rank=max(k0, num_experts // 2)),
            ]
        )
    )
    return logits, policy, k, real, draw(st.booleans())


@settings(max_examples=400, deadline=None, derandomize=True)
@given(cases())
def test_properties(case: tuple[torch.Tensor, Policy, int, int, bool]) -> None:
    check(route, *case)
    check(host.route, *case)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(cases(largest=24))
def test_properties_of_the_fused_launch(case: tuple[torch.Tensor, Policy, int, int, bool]) -> None:
    check(fused_on_device, *case)


def fused_on_device(logits: torch.Tensor, *args: Any, **kwargs: Any) -> Routing:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return Routing(*(each.cpu() for each in fused.route(logits.to(device), *args, **kwargs)))


def check(
    route: Callable[..., Routing],
    logits: torch.Tensor,
    policy: Policy,
    k: int,
    real: int,
    renormalize: bool,
) -> None:
    batch, num_experts = logits.shape
    routing = route(logits, policy, Router(k, renormalize=renormalize), num_real=real)
    weights, ids, pool = routing
    assert weights.shape == ids.shape == (batch, k)
    assert not weights.isnan().any()
    assert (weights >= 0).all()
    assert ((ids >= 0) & (ids < num_experts)).all()

    # pads are inert: no weight, nothing woken, nothing changed for real rows
    assert not weights[real:].any()
    alone = route(logits[:real], policy, Router(k, renormalize=renormalize))
    assert torch.equal(weights[:real], alone.weights)
    assert torch.equal(ids[:real], alone.ids)
    assert torch.equal(pool, alone.pool)

    # every id, unused slots and pads included, is in the pool (unless there is no pool at all)
    if real:
        assert pool[ids.long()].all()
        # the pool is what is read
        assert torch.equal(ids[:real].long().unique(), pool.nonzero().flatten())
    else:
        assert not pool.any()

    if renormalize and real:
        # experts drawn at random can hold so little mass that SGLang's epsilon (1e-20) shows
        mass = mass_of(logits[:real], routing.ids[:real], weights[:real])
        torch.testing.assert_close(weights[:real].sum(-1), mass / (mass + 1e-20))
        assert policy.name == "random" or (mass >= 1 / num_experts - 1e-6).all()
    check_floor(routing, policy, logits, k, real)


def mass_of(logits: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Router mass of the experts that each token uses. [B]"""
    return torch.where(weights > 0, logits.float().softmax(-1).gather(1, ids.long()), 0.0).sum(-1)


def check_floor(routing: Routing, policy: Policy, logits: torch.Tensor, k: int, real: int) -> None:
    """Every token holds its own best experts down to its floor, each once."""
    if policy.name == "random" or policy.p < 1:
        return
    numbers = policy.numbers(real, 0, k=k, num_experts=logits.shape[1])
    own = (
        logits.float()
        .softmax(-1)
        .sort(dim=-1, descending=True, stable=True)
        .indices[:real, : numbers.floor]
    )
    assert torch.equal(routing.ids[:real, : numbers.floor].long(), own)
    assert int(routing.pool.sum()) <= real * numbers.floor
    for row, weights in zip(routing.ids[:real], routing.weights[:real], strict=True):
        used = row[weights > 0]
        assert len(used.unique()) == len(used)


@pytest.mark.parametrize("renormalize", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_vanilla_is_softmax_and_top_k(renormalize: bool, dtype: torch.dtype) -> None:
    """Bit for bit what SGLang's native top-k computes (`fused_topk_torch_native`)."""
    logits = torch.randn(33, 128, generator=torch.Generator().manual_seed(0)).to(dtype)
    weights, ids = logits.float().softmax(-1).topk(8)
    if renormalize:
        weights = weights / (weights.sum(-1, keepdim=True) + 1e-20)
    routing = route(logits, Policy.vanilla(), Router(8, renormalize=renormalize))
    if dtype == torch.float32:  # bf16 ties, which top-k breaks as it likes
        assert torch.equal(routing.ids.long(), ids)
    assert torch.equal(routing.weights, weights)


@pytest.mark.parametrize(
    "policy", [Policy.oea("1:8,2:5,4:4,16:3"), Policy.oea(3), Policy.oea(1, k_max=2)]
)
def test_a_lone_token_gets_vanilla(policy: Policy) -> None:
    logits = torch.randn(1, 128)
    ours, vanilla = route(logits, policy, Router(8)), route(logits, Policy.vanilla(), Router(8))
    assert torch.equal(ours.ids, vanilla.ids)
    assert torch.equal(ours.weights, vanilla.weights)


def test_a_lone_token_among_pads_gets_vanilla() -> None:
    logits = torch.randn(8, 128)
    ours = route(logits, Policy.oea(3), Router(8), num_real=torch.tensor(1))
    assert torch.equal(ours.ids[:1], route(logits[:1], Policy.vanilla(), Router(8)).ids)


def test_pad_rows_may_hold_anything() -> None:
    logits = torch.randn(8, 64)
    logits[5:] = float("nan")
    logits[6] = float("inf")
    routing = route(logits, Policy.oea(2), Router(4), num_real=5)
    assert torch.equal(routing.pool, route(logits[:5], Policy.oea(2), Router(4)).pool)
    assert routing.pool[routing.ids.long()].all()
    assert not routing.weights[5:].any()


def test_ties_go_to_the_lowest_expert() -> None:
    routing = route(torch.zeros(3, 16), Policy.vanilla(), Router(4))
    assert routing.ids.tolist() == [[0, 1, 2, 3]] * 3


def test_a_pool_smaller_than_k_leaves_slots_unused() -> None:
    routing = route(torch.zeros(2, 16), Policy.oea(1), Router(4))
    assert routing.pool.nonzero().flatten().tolist() == [0]
    assert routing.ids.tolist() == [[0, 0, 0, 0]] * 2
    assert routing.weights.tolist() == [[1.0, 0.0, 0.0, 0.0]] * 2


@pytest.mark.parametrize(
    ("policy", "per_token"), [(Policy.vanilla(), 8), (Policy.random(3), 8), (Policy.oea(3), 3)]
)
def test_uniform_logits_wake_the_closed_form(policy: Policy, per_token: int) -> None:
    """E[T] = N (1 - (1 - m/N)^B) for m independent uniform experts per token: 82.4 and 40.4."""
    num_experts, batch, draws = 128, 16, 400
    generator = torch.Generator().manual_seed(1)
    woken = [
        int(
            route(torch.rand(batch, num_experts, generator=generator), policy, Router(8)).pool.sum()
        )
        for _ in range(draws)
    ]
    mean = sum(woken) / draws
    spread = math.sqrt(sum((t - mean) ** 2 for t in woken) / (draws - 1) / draws)
    expected = num_experts * (1 - (1 - per_token / num_experts) ** batch)
    assert expected == pytest.approx({8: 82.4, 3: 40.4}[per_token], abs=0.06)
    assert abs(mean - expected) < 5 * spread


def test_random_is_uniform_seeded_and_without_repeats() -> None:
    logits = torch.randn(2000, 64, generator=torch.Generator().manual_seed(5))
    routing = route(logits, Policy.random(1), Router(8))
    counts = routing.ids.long().flatten().bincount(minlength=64).float()
    expected = 2000 * 8 / 64
    chi_square = float(((counts - expected) ** 2 / expected).sum())
    assert chi_square < 63 + 5 * math.sqrt(2 * 63)
    assert all(len(set(row)) == 8 for row in routing.ids.tolist())
    assert torch.equal(routing.ids, route(logits, Policy.random(1), Router(8)).ids)
    assert not torch.equal(routing.ids, route(logits, Policy.random(2), Router(8)).ids)
    assert not torch.equal(routing.ids, route(logits, Policy.random(1), Router(8), layer=1).ids)
    # equal logits still differ by place, but for the few draws of 16 bits that are the same
    assert len(random_keys(torch.zeros(50, 64), 0, 0).unique()) > 0.99 * 50 * 64


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: Router(0), "k=0 is below 1"),
        (lambda x: route(x, Policy.vanilla(), Router(17)), r"k=17 is outside 1\.\.16"),
        (
            lambda x: route(x, Policy.oea(5), Router(4)),
            "k0=5 guarantees 5 experts, above the model's top-k 4",
        ),
        (lambda x: route(x, Policy.oea(2, k_max=17), Router(4)), "k_max=17 is above 16"),
        (
            lambda x: route(x, Policy.oea(2, max_rank=17), Router(4)),
            "max_rank=17 is above the model's 16 experts",
        ),
        (lambda x: Policy.oea(2, p=0.0), r"p=0.0 is outside 0 < p <= 1"),
        (lambda x: Policy.oea(2, p=1.1), r"p=1.1 is outside 0 < p <= 1"),
        (lambda x: Policy.oea(4, k_max=3), "k_max=3 is below k0=4"),
        (lambda x: Policy.oea(4, max_rank=3), "max_rank=3 is below k0=4"),
        (lambda x: Policy.oea(4, min_batch=0), "min_batch=0 is below 1"),
    ],
)
def test_bad_arguments_name_the_knob(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(torch.zeros(2, 16))  # type: ignore[operator]
