"""Routing inside a CUDA graph: captured once, replayed with other logits and other real rows."""

from __future__ import annotations

import pytest
import torch

from oea_server.routing import Policy, route
from oea_server.routing.tally import Tally

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU, and there is none here")

POLICIES = [
    Policy.vanilla(),
    Policy.random(1),
    Policy.pruned(3),
    Policy.oea("1:8,2:6,4:5,8:4,16:3"),
    Policy.oea(3, p=0.5),
    Policy.oea(3, max_rank=16),
]


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.name)
def test_replays_follow_the_device(policy: Policy) -> None:
    device = torch.device("cuda")
    logits = torch.randn(16, 128, device=device, dtype=torch.bfloat16)
    num_real = torch.tensor(16, device=device, dtype=torch.int32)
    tally = Tally([0], 128, 1, device)
    for _ in range(2):  # kernels and cached tables are made before the capture
        tally.add(0, route(logits, policy, k=8, num_real=num_real).ids, num_real)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        routing = route(logits, policy, k=8, num_real=num_real)
        tally.add(0, routing.ids, num_real)
    for batch in (1, 2, 5, 16):
        logits.copy_(torch.randn(16, 128))
        num_real.fill_(batch)
        before = tally.unique.clone()
        graph.replay()
        expected = route(logits.cpu()[:batch], policy, k=8)
        assert torch.equal(routing.ids[:batch].cpu(), expected.ids)
        torch.testing.assert_close(routing.weights[:batch].cpu(), expected.weights, rtol=1e-5, atol=1e-6)
        assert torch.equal(routing.pool.cpu(), expected.pool)
        assert not routing.weights[batch:].any()
        assert (tally.unique - before)[0].nonzero().flatten().tolist() == [int(expected.pool.sum())]
