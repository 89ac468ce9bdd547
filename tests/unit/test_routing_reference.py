"""eager.py, host.py and fused.py against the slow, obvious reference.py: ids and pool exactly,
weights within float32. The fused launch runs natively on a GPU, else in Triton's interpreter."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from oea_server.routing import Policy, Router, Routing, fused, host
from oea_server.routing.eager import route
from oea_server.routing.host import reference
from oea_server.routing.knobs import Knobs
from oea_server.routing.tally import MASS_UNIT, HostTally, Tally

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")

POLICIES = {
    "vanilla": lambda k, n: Policy.vanilla(),
    "random": lambda k, n: Policy.random(seed=7),
    "pruned": lambda k, n: Policy.pruned(max(1, k // 2)),
    "oea k0=1": lambda k, n: Policy.oea(1),
    "oea k0=k/2": lambda k, n: Policy.oea(max(1, k // 2)),
    "oea scheduled": lambda k, n: Policy.oea({2: k, 4: 1}),
    "oea p": lambda k, n: Policy.oea(k, p=0.4),
    "oea p, k_max>k": lambda k, n: Policy.oea(k, p=0.3, k_max=min(n, k + 2)),
    "oea k_max<k": lambda k, n: Policy.oea(1, k_max=max(1, k - 1)),
    "oea max_rank": lambda k, n: Policy.oea(1, max_rank=min(n, 5)),
    "oea max_rank=k": lambda k, n: Policy.oea(1, max_rank=k),
    "oea at any batch": lambda k, n: Policy.oea(1, min_batch=1),
    "oea by layer": lambda k, n: Policy.oea(f"{k}; 3=1"),
}


def logits(batch: int, num_experts: int, dtype: torch.dtype, ties: bool, seed: int) -> torch.Tensor:
    drawn = torch.randn(batch, num_experts, generator=torch.Generator().manual_seed(seed)) * 2
    return (drawn.round() if ties else drawn).to(dtype)


def assert_same(ours: Routing, expected: Routing) -> None:
    assert torch.equal(ours.ids.cpu(), expected.ids)
    assert torch.equal(ours.pool.cpu(), expected.pool)
    assert ours.ids.dtype == torch.int32
    assert ours.weights.dtype == torch.float32
    torch.testing.assert_close(ours.weights.cpu(), expected.weights, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("ties", [False, True], ids=["distinct", "ties"])
@pytest.mark.parametrize(
    ("num_experts", "k"), [(8, 1), (8, 2), (8, 8), (60, 2), (64, 8), (128, 8), (256, 8)]
)
def test_eager_and_host_are_the_reference(
    name: str, dtype: torch.dtype, ties: bool, num_experts: int, k: int
) -> None:
    policy = POLICIES[name](k, num_experts)
    for seed, batch in enumerate((0, 1, 2, 7, 17)):
        given = logits(batch, num_experts, dtype, ties, seed)
        for real in {None, 0, batch // 2, batch}:
            expected = reference(given, policy, Router(k), num_real=real, layer=3)
            assert_same(route(given, policy, Router(k), num_real=real, layer=3), expected)
            assert_same(host.route(given, policy, Router(k), num_real=real, layer=3), expected)
            if real is not None:  # the count as CUDA graphs have it: on the device only
                assert_same(
                    route(given, policy, Router(k), num_real=torch.tensor(real), layer=3), expected
                )


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize(
    ("num_experts", "k", "dtype", "ties"),
    [
        (8, 2, torch.float32, True),
        (60, 4, torch.float16, False),
        (128, 8, torch.bfloat16, True),
        (512, 10, torch.bfloat16, False),
    ],
    ids=str,
)
def test_fused_is_the_reference(
    name: str, num_experts: int, k: int, dtype: torch.dtype, ties: bool
) -> None:
    policy = POLICIES[name](k, num_experts)
    ours, expected_tally = Tally([3], num_experts, 2, DEVICE), HostTally([3], num_experts, 2)
    on_host = HostTally([3], num_experts, 2)
    # more rows than phase 1 holds at once, rows that do not fill a program, none at all
    for batch, real in ((0, None), (1, None), (5, 0), (19, 18)):
        given = logits(batch, num_experts, dtype, ties, batch)
        expected = reference(given, policy, Router(k), num_real=real, layer=3, tally=expected_tally)
        count = None if real is None else torch.tensor(real, dtype=torch.int32, device=DEVICE)
        assert_same(
            fused.route(given.to(DEVICE), policy, Router(k), num_real=count, layer=3, tally=ours),
            expected,
        )
        assert_same(
            host.route(given, policy, Router(k), num_real=real, layer=3, tally=on_host), expected
        )
    assert torch.equal(on_host.data[:, :-1], expected_tally.data[:, :-1])
    assert int((on_host.sums[0, 3] - expected_tally.sums[0, 3]).abs()) <= 2 * int(ours.sums[0, 0])
    assert torch.equal(ours.unique.cpu(), expected_tally.unique)
    assert torch.equal(ours.busiest.cpu(), expected_tally.busiest)
    assert torch.equal(ours.vanilla.cpu(), expected_tally.vanilla)
    assert torch.equal(ours.sums[:, :3].cpu(), expected_tally.sums[:, :3])
    assert int((ours.sums[0, 3].cpu() - expected_tally.sums[0, 3]).abs()) <= 2 * int(
        ours.sums[0, 0]
    )
    if name == "vanilla":
        assert int(ours.sums[0, 3]) == pytest.approx(int(ours.sums[0, 0]) * MASS_UNIT, rel=1e-5)


@pytest.mark.parametrize("router", [route, host.route, fused.route], ids=["eager", "host", "fused"])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("renormalize", [False, True])
@pytest.mark.parametrize("name", ["vanilla", "random", "oea k0=k/2", "oea p", "oea max_rank"])
def test_sigmoid_routers(
    router: Callable[..., Routing], biased: bool, renormalize: bool, name: str
) -> None:
    """DeepSeek-V3 and GLM-4.5: chosen by score + bias, weighed by score."""
    policy = POLICIES[name](8, 96)
    given = logits(13, 96, torch.float32, False, 4)
    bias = torch.linspace(-0.5, 0.5, 96) if biased else None
    asked = Router(8, renormalize=renormalize, scoring="sigmoid", bias=bias)
    ours_tally: Tally = HostTally([0], 96, 3) if router is host.route else Tally([0], 96, 3, DEVICE)
    expected_tally = HostTally([0], 96, 3)
    expected = reference(given, policy, asked, num_real=11, tally=expected_tally)
    where = torch.device("cpu") if router is host.route else DEVICE
    moved = None if bias is None else bias.to(where)
    ours = router(
        given.to(where), policy, replace(asked, bias=moved), num_real=11, tally=ours_tally
    )
    assert_same(ours, expected)
    assert torch.equal(ours_tally.data[:, :-1].cpu(), expected_tally.data[:, :-1])
    if biased and name == "vanilla":
        assert not torch.equal(
            ours.pool.cpu(), reference(given, policy, replace(asked, bias=None), num_real=11).pool
        )


@pytest.mark.parametrize("router", [route, fused.route], ids=["eager", "fused"])
def test_knobs_on_the_device_are_followed_at_the_next_call(router: Callable[..., Routing]) -> None:
    """What a captured graph does at replay: the same call on the same tensors, other numbers in
    them."""
    knobs = Knobs({3: 8, 7: 8}, 64, DEVICE)
    given = logits(9, 64, torch.bfloat16, False, 5)
    on_device, real = given.to(DEVICE), torch.tensor(9, dtype=torch.int32, device=DEVICE)
    address = knobs.table.data_ptr()
    for policy in (
        Policy.vanilla(),
        Policy.oea(2),
        Policy.oea("1:8,4:3,9:2; 7=1:8,9:1"),
        Policy.oea(4, p=0.3),
        Policy.oea(2, max_rank=20),
        Policy.oea(2, k_max=6),
        Policy.oea(2, min_batch=8),
        Policy.random(5),
        Policy.pruned(3),
        Policy.vanilla(),
    ):
        knobs.write(policy)
        for batch in (9, 4):
            real.fill_(batch)
            for layer in (3, 7):
                ours = router(on_device, knobs, Router(8), num_real=real, layer=layer)
                assert_same(ours, reference(given, policy, Router(8), num_real=batch, layer=layer))
    assert address == knobs.table.data_ptr()


def test_knobs_that_do_not_fit_change_nothing() -> None:
    knobs = Knobs({0: 4}, 16, DEVICE)
    knobs.write(Policy.oea(2))
    before = knobs.table.clone()
    with pytest.raises(ValueError, match="above the model's top-k 4"):
        knobs.write(Policy.oea(5))
    assert torch.equal(knobs.table, before)


@pytest.mark.parametrize(
    ("batch", "num_experts", "k", "problem"),
    [(2049, 16, 4, "2049 rows"), (4, 1025, 4, "1025 experts"), (4, 64, 33, "33 experts per token")],
)
def test_what_the_fused_launch_does_not_take(
    batch: int, num_experts: int, k: int, problem: str
) -> None:
    assert problem in str(fused.problem_of(batch, num_experts, k))
    with pytest.raises(ValueError, match=problem):
        fused.route(torch.zeros(batch, num_experts), Policy.vanilla(), Router(k))


@pytest.mark.parametrize("name", POLICIES)
def test_without_renormalisation_weights_are_the_scores(name: str) -> None:
    given = logits(9, 64, torch.float32, False, 1)
    policy = POLICIES[name](4, 64)
    ours = route(given, policy, Router(4, renormalize=False))
    expected = reference(given, policy, Router(4, renormalize=False))
    assert_same(ours, expected)
    assert_same(fused.route(given.to(DEVICE), policy, Router(4, renormalize=False)), expected)
    assert_same(host.route(given, policy, Router(4, renormalize=False)), expected)
    scores = given.softmax(-1).gather(1, ours.ids.long())
    used = ours.weights > 0
    torch.testing.assert_close(ours.weights[used], scores[used])


def test_batches_beyond_the_device_table_route_like_its_last_row() -> None:
    given = logits(1500, 16, torch.float32, False, 2)
    policy = Policy.oea({2: 4, 1024: 1})
    assert_same(
        route(given, policy, Router(4), num_real=torch.tensor(1500)),
        reference(given, policy, Router(4), num_real=1500),
    )
