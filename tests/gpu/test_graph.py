"""Routing inside a CUDA graph: captured once, replayed with other logits, real rows and knobs.

On a GPU if there is one; else the compiled PTX in an interpreter, and a graph that records.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from oea_server.routing import Policy, Router, Routing, eager, fused
from oea_server.routing.device_tally import DeviceTally
from oea_server.routing.knobs import Knobs
from oea_server.routing.placement import contiguous
from oea_server.routing.tally import HostTally, Tally
from tests.gpu.device import Device

POLICIES = [
    Policy.vanilla(),
    Policy.oea("1:8,2:5,4:4,16:3"),
    Policy.random(1),
    Policy.pruned(3),
    Policy.oea(3, p=0.5),
    Policy.oea(3, max_rank=16),
    Policy.oea("1:8,16:3; 5=2"),
    Policy.oea(3, pool="fill"),
    Policy.oea(1, pool="budget", rank_budget=7),
    Policy.vanilla(),
]


@pytest.mark.parametrize("router", [eager.route, fused.route], ids=["eager", "fused"])
@pytest.mark.parametrize("ranks", [1, 8])
def test_replays_follow_the_device(router: Callable[..., Routing], ranks: int, gpu: Device) -> None:
    device = gpu.torch_device
    logits = torch.randn(16, 128, device=device, dtype=torch.bfloat16)
    num_real = torch.tensor(16, device=device, dtype=torch.int32)
    knobs, tally = Knobs({4: 8, 5: 8}, 128, device), Tally([4, 5], 128, ranks, device)
    place, expected_place = (
        contiguous(128, ranks, device),
        contiguous(128, ranks, torch.device("cpu")),
    )

    def call() -> Routing:
        return router(
            logits, knobs, Router(8), num_real=num_real, layer=5, tally=tally, placement=place
        )

    for _ in range(2):  # kernels and cached tables are made before the capture
        call()
    graph = gpu.new_graph()
    with gpu.capture(graph):
        routing = call()
    for policy in POLICIES:
        knobs.write(policy)
        for batch in (1, 2, 5, 16, 0):
            logits.copy_(torch.randn(16, 128))
            num_real.fill_(batch)
            before = tally.data.clone()
            graph.replay()
            counted = HostTally([5], 128, ranks)
            expected = eager.route(
                logits.cpu()[:batch],
                policy,
                Router(8),
                layer=5,
                tally=counted,
                placement=expected_place,
            )
            assert torch.equal(routing.ids[:batch].cpu(), expected.ids)
            torch.testing.assert_close(
                routing.weights[:batch].cpu(), expected.weights, rtol=1e-5, atol=1e-6
            )
            assert torch.equal(routing.pool.cpu(), expected.pool)
            assert not routing.weights[batch:].any()
            gained = (tally.data - before).cpu()
            assert torch.equal(gained[1, :-1], counted.data[0, :-1])
            assert not gained[0].any()
    tally.counting.fill_(0)
    before = tally.data.clone()
    graph.replay()
    assert torch.equal(tally.data, before)


def test_a_step_is_counted_when_its_last_layer_is_through(gpu: Device) -> None:
    """As a server does: a launch for each layer, and one that counts them all; where the last layer
    runs SGLang's own top k, that layer's own count brings it."""
    device = gpu.torch_device
    logits = torch.randn(3, 16, 128, device=device).bfloat16()
    num_real = torch.tensor(13, device=device, dtype=torch.int32)
    knobs, tally = Knobs({4: 8, 5: 8, 6: 8}, 128, device), DeviceTally([4, 5, 6], 128, 1, device)
    tally.by_step = True
    knobs.write(Policy.oea(3))
    own = eager.route(logits[2], Policy.vanilla(), Router(8)).ids

    def step() -> None:
        for layer in (4, 5):
            fused.route(
                logits[layer - 4], knobs, Router(8), num_real=num_real, layer=layer, tally=tally
            )
        tally.add_vanilla(6, own, num_real)

    for _ in range(2):
        step()
    tally.data.zero_()
    graph = gpu.new_graph()
    with gpu.capture(graph):
        step()
    expected = HostTally([4, 5, 6], 128, 1)
    for batch in (13, 2, 16):
        num_real.fill_(batch)
        logits.copy_(torch.randn(3, 16, 128))
        own.copy_(eager.route(logits[2], Policy.vanilla(), Router(8)).ids)
        graph.replay()
        for layer in (4, 5):
            eager.route(
                logits[layer - 4].cpu(),
                Policy.oea(3),
                Router(8),
                num_real=batch,
                layer=layer,
                tally=expected,
            )
        expected.add_vanilla(6, own.cpu(), batch)
    assert torch.equal(tally.data[:, :-1].cpu(), expected.data[:, :-1])
