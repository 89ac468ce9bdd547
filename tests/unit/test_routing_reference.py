"""eager.py against the slow, obvious reference.py: ids and pool exactly, weights within float32."""

import pytest
import torch

from oea_server.routing import Policy, Routing, reference, route

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
    assert torch.equal(ours.ids, expected.ids)
    assert torch.equal(ours.pool, expected.pool)
    assert ours.ids.dtype == torch.int32
    assert ours.weights.dtype == torch.float32
    torch.testing.assert_close(ours.weights, expected.weights, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("ties", [False, True], ids=["distinct", "ties"])
@pytest.mark.parametrize(("num_experts", "k"), [(8, 1), (8, 2), (8, 8), (60, 2), (64, 8), (128, 8), (256, 8)])
def test_eager_is_the_reference(name: str, dtype: torch.dtype, ties: bool, num_experts: int, k: int) -> None:
    policy = POLICIES[name](k, num_experts)
    for seed, batch in enumerate((0, 1, 2, 7, 17)):
        given = logits(batch, num_experts, dtype, ties, seed)
        for real in {None, 0, batch // 2, batch}:
            expected = reference.route(given, policy, k=k, num_real=real, layer=3)
            assert_same(route(given, policy, k=k, num_real=real, layer=3), expected)
            if real is not None:  # the count as CUDA graphs have it: on the device only
                assert_same(route(given, policy, k=k, num_real=torch.tensor(real), layer=3), expected)


@pytest.mark.parametrize("name", POLICIES)
def test_without_renormalisation_weights_are_the_scores(name: str) -> None:
    given = logits(9, 64, torch.float32, False, 1)
    policy = POLICIES[name](4, 64)
    ours = route(given, policy, k=4, renormalize=False)
    assert_same(ours, reference.route(given, policy, k=4, renormalize=False))
    scores = given.softmax(-1).gather(1, ours.ids.long())
    used = ours.weights > 0
    torch.testing.assert_close(ours.weights[used], scores[used])


def test_batches_beyond_the_device_table_route_like_its_last_row() -> None:
    given = logits(1500, 16, torch.float32, False, 2)
    policy = Policy.oea({2: 4, 1024: 1})
    assert_same(
        route(given, policy, k=4, num_real=torch.tensor(1500)), reference.route(given, policy, k=4, num_real=1500)
    )
