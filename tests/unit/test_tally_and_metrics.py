import pytest
import torch
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from oea_server.observe.metrics import EXPERTS, Metrics, observe_counts
from oea_server.observe.reporter import Reporter
from oea_server.routing import Policy, route
from oea_server.routing.tally import Tally

CPU = torch.device("cpu")


def test_tally_counts_what_was_read() -> None:
    tally = Tally([3, 7], 64, ranks=4, device=CPU)
    expected: dict[int, list[tuple[int, int]]] = {3: [], 7: []}
    for step in range(20):
        for layer, seen in expected.items():
            ids = route(torch.randn(11, 64), Policy.oea(2), k=4, num_real=9, layer=layer).ids
            tally.add(layer, ids, 9 if step % 2 else torch.tensor(9))
            experts = set(ids[:9].flatten().tolist())
            seen.append((len(experts), max(sum(e // 16 == rank for e in experts) for rank in range(4))))
    for row, seen in enumerate(expected.values()):
        for counters, which in ((tally.unique, 0), (tally.busiest, 1)):
            counts = torch.tensor([each[which] for each in seen]).bincount(minlength=65)
            assert torch.equal(counters[row], counts)


def test_minus_one_and_pads_read_nothing() -> None:
    tally = Tally([0], 8, ranks=2, device=CPU)
    tally.add(0, torch.tensor([[0, 5], [-1, -1], [6, 7]]), num_real=2)
    tally.add(0, torch.tensor([[-1, -1]]), num_real=None)
    assert tally.unique[0].nonzero().flatten().tolist() == [0, 2]
    assert tally.busiest[0].nonzero().flatten().tolist() == [0, 1]


def test_steps_that_are_not_to_be_counted_are_not() -> None:
    tally = Tally([0], 8, ranks=1, device=CPU)
    tally.counting.fill_(0)
    tally.add(0, torch.tensor([[0, 5]]), num_real=None)
    assert not tally.unique.any()


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


def test_the_reporter_adds_each_step_once() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    tally = Tally([0, 1], 16, ranks=2, device=CPU)
    steps = [(3, 0.02), (3, 0.03)]
    reporter = Reporter(metrics, tally, lambda: [steps.pop() for _ in range(len(steps))])
    for ids in ([[0, 1], [2, 9], [2, 1]], [[4, 4], [4, 4], [4, 4]]):
        for layer in (0, 1):
            tally.add(layer, torch.tensor(ids), None)
    reporter.report()
    reporter.report()  # nothing new
    value = registry.get_sample_value
    assert value("oea_unique_experts_count") == 4
    assert value("oea_unique_experts_sum") == 2 * (4 + 1)
    assert value("oea_max_rank_unique_experts_sum") == 2 * (3 + 1)
    assert value("oea_decode_batch_size_sum") == 6
    assert value("oea_decode_step_seconds_count") == 2
    assert value("oea_decode_step_seconds_sum") == pytest.approx(0.05)
    assert value("oea_unique_experts_bucket", {"le": "1.0"}) == 2


def test_later_pipeline_stages_report_their_layers_but_not_the_steps_again() -> None:
    registry = CollectorRegistry()
    tally = Tally([8], 16, ranks=1, device=CPU)
    reporter = Reporter(Metrics(registry), tally, lambda: [(2, 0.01)], first_stage=False)
    tally.add(8, torch.tensor([[0, 1], [2, 9]]), None)
    reporter.report()
    assert registry.get_sample_value("oea_unique_experts_sum") == 4
    assert registry.get_sample_value("oea_decode_batch_size_count") == 0


def test_the_number_of_series_does_not_grow_with_the_model() -> None:
    sizes = []
    for layers, experts in ((1, 8), (94, 512)):
        registry = CollectorRegistry()
        Reporter(Metrics(registry), Tally(range(layers), experts, 8, CPU), list)
        sizes.append(len(generate_latest(registry).splitlines()))
    assert sizes[0] == sizes[1] < 150


def test_the_reason_is_a_label() -> None:
    registry = CollectorRegistry()
    Metrics(registry).set_router_active(False, "the policy is vanilla")
    assert registry.get_sample_value("oea_router_active", {"reason": "the policy is vanilla"}) == 0
