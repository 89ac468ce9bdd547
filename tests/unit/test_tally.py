from collections.abc import Callable, Sequence

import pytest
import torch

from oea_server.routing import Policy, Router
from oea_server.routing.eager import route
from oea_server.routing.host import reference
from oea_server.routing.tally import MASS_UNIT, HostTally, Tally, awake_of

CPU = torch.device("cpu")


@pytest.fixture(params=[Tally, HostTally], ids=["device", "host"])
def make(request: pytest.FixtureRequest) -> Callable[..., Tally]:
    def made(layers: Sequence[int], num_experts: int, ranks: int, placed: bool = False) -> Tally:
        if request.param is HostTally:
            return HostTally(layers, num_experts, ranks, placed)
        return Tally(layers, num_experts, ranks, CPU, placed)

    return made


def test_tally_counts_what_was_read(make: Callable[..., Tally]) -> None:
    """What a policy routed, against a count by sets, one token at a time."""
    ours, expected = make([3, 7], 64, ranks=4), HostTally([3, 7], 64, 4)
    for step in range(20):
        for layer in (3, 7):
            logits, policy = torch.randn(11, 64), Policy.oea(2, p=1.0 if step % 2 else 0.1)
            real = 9 if step % 3 else torch.tensor(9)
            route(logits, policy, Router(4), num_real=real, layer=layer, tally=ours)
            reference(logits, policy, Router(4), num_real=9, layer=layer, tally=expected)
    assert torch.equal(ours.unique, expected.unique)
    assert torch.equal(ours.busiest, expected.busiest)
    assert torch.equal(ours.vanilla, expected.vanilla)
    assert torch.equal(ours.sums[:, :3], expected.sums[:, :3])
    assert ours.unique.sum() == ours.vanilla.sum() == 40
    difference = (ours.sums[:, 3] - expected.sums[:, 3]).abs()  # a unit of rounding per token
    assert (difference <= ours.sums[:, 0]).all()
    assert (expected.sums[:, 3] < expected.sums[:, 0] * MASS_UNIT).all()


def test_a_vanilla_step_keeps_all_the_mass(make: Callable[..., Tally]) -> None:
    logits = torch.randn(6, 16)
    ours, routed = make([0], 16, ranks=2), make([0], 16, ranks=2)
    ours.add_vanilla(0, logits.topk(4).indices.int(), None)
    route(logits, Policy.vanilla(), Router(4), tally=routed)
    assert torch.equal(ours.data[:, :-1], routed.data[:, :-1])
    assert ours.sums[0].tolist() == [6, 24, 0, 6 * MASS_UNIT]
    assert routed.sums[0, 3].item() == pytest.approx(6 * MASS_UNIT, rel=1e-6)


def test_minus_one_and_pads_read_nothing(make: Callable[..., Tally]) -> None:
    tally = make([0], 8, ranks=2)
    tally.add_vanilla(0, torch.tensor([[0, 5], [-1, -1], [6, 7]]), num_real=2)
    tally.add_vanilla(0, torch.tensor([[-1, -1]]), num_real=None)
    assert tally.unique[0].nonzero().flatten().tolist() == [0, 2]
    assert tally.busiest[0].nonzero().flatten().tolist() == [0, 1]


def test_experts_that_a_map_places_are_counted_where_they_lie(make: Callable[..., Tally]) -> None:
    tally = make([0], 12, ranks=3, placed=True)
    routing = route(torch.randn(5, 8), Policy.oea(1), Router(2), tally=tally)
    assert not tally.unique.any()
    tally.add_loaded(0, awake_of(routing.ids + 4, 12))
    assert tally.unique[0].nonzero().flatten().tolist() == [int(routing.pool.sum())]
    assert tally.sums[0, 0] == 5


def test_steps_that_are_not_to_be_counted_are_not(make: Callable[..., Tally]) -> None:
    tally = make([0], 8, ranks=1)
    tally.counting.fill_(0)
    tally.add_vanilla(0, torch.tensor([[0, 5]]), num_real=None)
    route(torch.randn(3, 8), Policy.oea(1), Router(2), tally=tally)
    assert not tally.data.any()


def test_experts_must_divide_over_ranks() -> None:
    with pytest.raises(ValueError, match="10 experts do not divide over 4 ranks"):
        Tally([0], 10, ranks=4, device=CPU)
