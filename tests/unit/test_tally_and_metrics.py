from collections.abc import Callable, Sequence

import pytest
import torch
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from oea_server.observe.metrics import EXPERTS, Metrics, observe_counts
from oea_server.observe.reporter import Reporter
from oea_server.routing import Policy, reference, route
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
            route(logits, policy, k=4, num_real=real, layer=layer, tally=ours)
            reference.route(logits, policy, k=4, num_real=9, layer=layer, tally=expected)
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
    route(logits, Policy.vanilla(), k=4, tally=routed)
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
    routing = route(torch.randn(5, 8), Policy.oea(1), k=2, tally=tally)
    assert not tally.unique.any()
    tally.add_loaded(0, awake_of(routing.ids + 4, 12))
    assert tally.unique[0].nonzero().flatten().tolist() == [int(routing.pool.sum())]
    assert tally.sums[0, 0] == 5


def test_steps_that_are_not_to_be_counted_are_not(make: Callable[..., Tally]) -> None:
    tally = make([0], 8, ranks=1)
    tally.counting.fill_(0)
    tally.add_vanilla(0, torch.tensor([[0, 5]]), num_real=None)
    route(torch.randn(3, 8), Policy.oea(1), k=2, tally=tally)
    assert not tally.data.any()


def test_experts_must_divide_over_ranks() -> None:
    with pytest.raises(ValueError, match="10 experts do not divide over 4 ranks"):
        Tally([0], 10, ranks=4, device=CPU)


def test_observing_many_at_once_is_observing_each() -> None:
    values = [1.0, 1.0, 40.0, 41.0, 0.5, 512.0, 513.0, 2.0]
    one, many = CollectorRegistry(), CollectorRegistry()
    each = Histogram("h", "h", buckets=EXPERTS, registry=one)
    for value in values:
        each.observe(value)
    observe_counts(Histogram("h", "h", buckets=EXPERTS, registry=many), ((value, 1) for value in values))

    def samples(registry: CollectorRegistry) -> list[str]:
        return [line for line in generate_latest(registry).decode().splitlines() if "_created" not in line]

    assert samples(one) == samples(many)


def active() -> tuple[bool, str]:
    return True, ""


def test_the_reporter_adds_each_step_once() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    tally = HostTally([0, 1], 16, ranks=2)
    steps = [(3, 0.02), (3, 0.03)]
    reporter = Reporter(metrics, tally, lambda: [steps.pop() for _ in range(len(steps))], active)
    for ids in ([[0, 1], [2, 9], [2, 1]], [[4, 4], [4, 4], [4, 4]]):
        for layer in (0, 1):
            tally.add_vanilla(layer, torch.tensor(ids), None)
    reporter.report()
    reporter.report()  # nothing new
    value = registry.get_sample_value
    assert value("oea_unique_experts_count") == 4
    assert value("oea_unique_experts_sum") == 2 * (4 + 1)
    assert value("oea_vanilla_unique_experts_sum") == 2 * (4 + 1)
    assert value("oea_max_rank_unique_experts_sum") == 2 * (3 + 1)
    assert value("oea_decode_batch_size_sum") == 6
    assert value("oea_decode_step_seconds_count") == 2
    assert value("oea_decode_step_seconds_sum") == pytest.approx(0.05)
    assert value("oea_unique_experts_bucket", {"le": "1.0"}) == 2
    assert value("oea_routed_tokens_total") == 12
    assert value("oea_assignments_total") == 24
    assert value("oea_piggybacked_assignments_total") == 0
    assert value("oea_router_mass_kept") == 1


def test_the_reporter_shows_what_the_policy_saved_and_cost() -> None:
    registry = CollectorRegistry()
    tally = HostTally([0], 64, ranks=1)
    reporter = Reporter(Metrics(registry), tally, lambda: [(8, 0.01)], active)
    logits = torch.randn(8, 64)
    routing = route(logits, Policy.oea(2), k=4, tally=tally)
    reporter.report()
    value = registry.get_sample_value
    assert value("oea_unique_experts_sum") == int(routing.pool.sum())
    vanilla = route(logits, Policy.vanilla(), k=4)
    assert value("oea_vanilla_unique_experts_sum") == int(vanilla.pool.sum())
    assert value("oea_piggybacked_assignments_total") == 8 * (4 - 2)
    scores = logits.softmax(-1)
    kept = scores.gather(1, routing.ids.long()).sum(-1) / scores.gather(1, vanilla.ids.long()).sum(-1)
    assert value("oea_router_mass_kept") == pytest.approx(float(kept.mean()), abs=1e-5)


def test_a_copy_that_falls_inside_a_step_loses_nothing() -> None:
    registry = CollectorRegistry()
    tally = HostTally([0], 8, ranks=1)
    reporter = Reporter(Metrics(registry), tally, lambda: [(1, 0.01)], active)
    for piggybacked in (5, 3, 9):  # the launch takes the floors off and adds the rest, in two places
        tally.sums[0, 2] = piggybacked
        reporter.report()
    assert registry.get_sample_value("oea_piggybacked_assignments_total") == 9


def test_later_pipeline_stages_report_their_layers_but_not_the_steps_again() -> None:
    registry = CollectorRegistry()
    tally = HostTally([8], 16, ranks=1)
    reporter = Reporter(Metrics(registry), tally, lambda: [(2, 0.01)], active, first_stage=False)
    tally.add_vanilla(8, torch.tensor([[0, 1], [2, 9]]), None)
    reporter.report()
    assert registry.get_sample_value("oea_unique_experts_sum") == 4
    assert registry.get_sample_value("oea_decode_batch_size_count") == 0


def test_the_number_of_series_does_not_grow_with_the_model() -> None:
    sizes = []
    for layers, experts in ((1, 8), (94, 512)):
        registry = CollectorRegistry()
        Reporter(Metrics(registry), HostTally(range(layers), experts, 8), list, active)
        sizes.append(len(generate_latest(registry).splitlines()))
    assert sizes[0] == sizes[1] < 200


def test_the_router_says_why_it_is_not_active_while_that_is_so() -> None:
    registry = CollectorRegistry()
    metrics, value = Metrics(registry), registry.get_sample_value
    metrics.set_router_active(False, "the policy is vanilla")
    assert value("oea_router_active") == 0
    assert value("oea_router_limits", {"reason": "the policy is vanilla"}) == 1
    metrics.set_router_active(True, "")
    assert value("oea_router_active") == 1
    assert value("oea_router_limits", {"reason": "the policy is vanilla"}) == 0
