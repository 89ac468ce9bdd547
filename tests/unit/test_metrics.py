from __future__ import annotations

import pytest
import torch
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from oea_server.observe.metrics import EXPERTS, Metrics, observe_counts
from oea_server.observe.reporter import Options, Reporter
from oea_server.routing import Policy, route
from tests.unit.counted import Scheduler, state


def reporting(
    scheduler: Scheduler, options: Options | None = None
) -> tuple[Reporter, CollectorRegistry]:
    registry = CollectorRegistry()
    return Reporter(Metrics(registry), scheduler.counted, options or Options()), registry


def test_observing_many_at_once_is_observing_each() -> None:
    values = [1.0, 1.0, 40.0, 41.0, 0.5, 512.0, 513.0, 2.0]
    one, many = CollectorRegistry(), CollectorRegistry()
    each = Histogram("h", "h", buckets=EXPERTS, registry=one)
    for value in values:
        each.observe(value)
    observe_counts(
        Histogram("h", "h", buckets=EXPERTS, registry=many), ((value, 1) for value in values)
    )

    def samples(registry: CollectorRegistry) -> list[str]:
        return [
            line
            for line in generate_latest(registry).decode().splitlines()
            if "_created" not in line
        ]

    assert samples(one) == samples(many)


def test_the_reporter_adds_each_step_once() -> None:
    scheduler = Scheduler([0, 1], ranks=2)
    reporter, registry = reporting(scheduler)
    scheduler.steps, scheduler.requests = [(3, 0.02), (3, 0.03)], 4
    for ids in ([[0, 1], [2, 9], [2, 1]], [[4, 4], [4, 4], [4, 4]]):
        for layer in (0, 1):
            scheduler.tally.add_vanilla(layer, torch.tensor(ids), None)
    reporter.report()
    reporter.report()  # nothing new
    value = registry.get_sample_value
    assert value("oea_unique_experts_count") == 4
    assert value("oea_unique_experts_sum") == 2 * (4 + 1)
    assert value("oea_vanilla_unique_experts_sum") == 2 * (4 + 1)
    assert value("oea_max_rank_unique_experts_sum") == 2 * (3 + 1)
    assert value("oea_decode_batch_size_sum") == 6
    assert value("oea_decode_requests_total") == 4
    assert value("oea_decode_step_seconds_count") == 2
    assert value("oea_decode_step_seconds_sum") == pytest.approx(0.05)
    assert value("oea_unique_experts_bucket", {"le": "1.0"}) == 2
    assert value("oea_routed_tokens_total") == value("oea_kept_router_mass_total") == 12
    assert value("oea_assignments_total") == 24
    assert value("oea_piggybacked_assignments_total") == 0
    assert value("oea_router_mass_kept") == 1
    assert value("oea_expert_bytes_read_total") == 10 * 100
    assert value("oea_expert_bytes_saved_total") == 0
    assert value("oea_shadow_unique_experts_count") == 0


def test_rows_are_accepted_once_a_step_and_experts_woken_in_each_layer() -> None:
    scheduler = Scheduler([0, 1])
    reporter, registry = reporting(scheduler)
    for rejected in ((3, 1), (0, 4)):
        scheduler.steps = [(8, 0.02)]
        scheduler.tally.verified[:, 0] += 5
        scheduler.tally.verified[:, 1] += torch.tensor(rejected)
        reporter.report()
    assert registry.get_sample_value("oea_accepted_rows_total") == 10
    assert registry.get_sample_value("oea_rejected_experts_total") == 8


def test_the_reporter_shows_what_the_policy_saved_and_cost() -> None:
    scheduler = Scheduler(num_experts=64)
    reporter, registry = reporting(scheduler)
    scheduler.steps = [(8, 0.01)]
    logits = torch.randn(8, 64)
    routing = route(logits, Policy.oea(2), k=4, tally=scheduler.tally)
    reporter.report()
    value = registry.get_sample_value
    unique = int(routing.pool.sum())
    assert value("oea_unique_experts_sum") == unique
    vanilla = route(logits, Policy.vanilla(), k=4)
    would = int(vanilla.pool.sum())
    assert value("oea_vanilla_unique_experts_sum") == would
    assert value("oea_piggybacked_assignments_total") == 8 * (4 - 2)
    assert value("oea_expert_bytes_read_total") == unique * 100
    assert value("oea_expert_bytes_saved_total") == (would - unique) * 100
    scores = logits.softmax(-1)
    kept = scores.gather(1, routing.ids.long()).sum(-1) / scores.gather(1, vanilla.ids.long()).sum(
        -1
    )
    assert value("oea_router_mass_kept") == pytest.approx(float(kept.mean()), abs=1e-5)
    assert value("oea_kept_router_mass_total") == pytest.approx(float(kept.sum()), abs=1e-4)


def test_shadow_is_reported_beside_what_was_served() -> None:
    scheduler = Scheduler(num_experts=64)
    scheduler.state = state("shadow")
    reporter, registry = reporting(scheduler)
    scheduler.steps = [(8, 0.01)]
    logits = torch.randn(8, 64)
    served = route(logits, Policy.vanilla(), k=4, tally=scheduler.tally)
    would = route(logits, Policy.oea(1), k=4, tally=scheduler.shadow)
    reporter.report()
    value = registry.get_sample_value
    assert value("oea_unique_experts_sum") == int(served.pool.sum())
    assert value("oea_shadow_unique_experts_sum") == int(would.pool.sum())
    assert value("oea_router_mass_kept") == pytest.approx(1)
    assert 0 < (value("oea_shadow_router_mass_kept") or 0) < 1


def test_more_than_vanilla_saves_nothing() -> None:
    scheduler = Scheduler(num_experts=64)
    reporter, registry = reporting(scheduler)
    logits = torch.zeros(32, 64).index_fill_(1, torch.arange(4), 9.0)  # all tokens agree
    route(logits, Policy.random(1), k=4, tally=scheduler.tally)
    scheduler.steps = [(32, 0.01)]
    reporter.report()
    assert registry.get_sample_value("oea_expert_bytes_saved_total") == 0


def test_a_copy_that_falls_inside_a_step_loses_nothing() -> None:
    scheduler = Scheduler()
    reporter, registry = reporting(scheduler)
    # the launch takes the floors off and adds the rest, in two places
    for piggybacked in (5, 3, 9):
        scheduler.tally.sums[0, 2] = piggybacked
        scheduler.steps = [(1, 0.01)]
        reporter.report()
    assert registry.get_sample_value("oea_piggybacked_assignments_total") == 9


def test_later_pipeline_stages_report_their_layers_but_not_the_steps_again() -> None:
    scheduler = Scheduler([8])
    reporter, registry = reporting(scheduler, Options(first_stage=False))
    scheduler.steps, scheduler.bypassed["prefill"] = [(2, 0.01)], 3
    scheduler.tally.add_vanilla(8, torch.tensor([[0, 1], [2, 9]]), None)
    reporter.report()
    assert registry.get_sample_value("oea_unique_experts_sum") == 4
    assert registry.get_sample_value("oea_decode_batch_size_count") == 0
    assert registry.get_sample_value("oea_bypassed_steps_total", {"reason": "prefill"}) is None


def test_passes_without_us_are_counted_by_reason() -> None:
    scheduler = Scheduler()
    reporter, registry = reporting(scheduler)
    for prefills in (2, 5):
        scheduler.bypassed["prefill"] = prefills
        reporter.report()
        assert (
            registry.get_sample_value("oea_bypassed_steps_total", {"reason": "prefill"}) == prefills
        )
    assert registry.get_sample_value("oea_bypassed_steps_total", {"reason": "policy"}) is None


def test_the_configuration_is_shown_and_its_changes_counted() -> None:
    scheduler = Scheduler()
    reporter, registry = reporting(scheduler)

    def policies() -> dict[str, float | None]:
        sizes = {"num_experts": "16", "top_k": "8", "ranks": "1"}
        return {
            each: registry.get_sample_value("oea_policy_info", {"policy": each, **sizes})
            for each in ("oea", "vanilla", "shadow", "pruned", "random")
        }

    reporter.report()
    assert policies() == {"oea": 1, "vanilla": 0, "shadow": 0, "pruned": 0, "random": 0}
    assert registry.get_sample_value("oea_config_changes_total") == 0
    for version, policy in ((2, "vanilla"), (3, "oea"), (5, "shadow")):
        scheduler.state = {**state(policy, version), "k0_by_batch": {"1": 8, "16": version}}
        reporter.report()
        assert [each for each, set_ in policies().items() if set_] == [policy]
        assert registry.get_sample_value("oea_config_changes_total") == version
        assert registry.get_sample_value("oea_router_active") == int(policy == "oea")
        assert registry.get_sample_value("oea_k0", {"batch": "16"}) == version
        assert registry.get_sample_value("oea_share", {"batch": "16"}) == 0.13
        assert registry.get_sample_value("oea_mix", {"batch": "16"}) == 0.5


def test_layers_get_series_only_where_asked_for() -> None:
    for per_layer in (False, True):
        scheduler = Scheduler([3, 7])
        reporter, registry = reporting(scheduler, Options(per_layer=per_layer))
        for ids in ([[0, 1], [2, 9]], [[0, 1], [0, 1]]):
            scheduler.tally.add_vanilla(7, torch.tensor(ids), None)
        scheduler.steps = [(2, 0.01)]
        reporter.report()
        expected = (2, 6, 6, 1) if per_layer else (None,) * 4
        for layer, values in (("7", expected), ("3", (None,) * 4)):
            names = (
                "steps_total",
                "unique_experts_total",
                "vanilla_unique_experts_total",
                "router_mass_kept",
            )
            assert values == tuple(
                registry.get_sample_value(f"oea_layer_{name}", {"layer": layer}) for name in names
            )


def test_the_number_of_series_does_not_grow_with_the_model_or_with_changes() -> None:
    sizes = []
    for layers, experts, changes in ((1, 8, 1), (94, 512, 50)):
        scheduler = Scheduler(range(layers), experts, 8)
        reporter, registry = reporting(scheduler)
        for version in range(changes):
            scheduler.state = state("oea", version, k0=str(1 + version % 8), p=1 / (1 + version))
            reporter.report()
        sizes.append(len(generate_latest(registry).splitlines()))
    assert sizes[0] == sizes[1] < 350


def test_the_router_says_why_it_is_not_active_while_that_is_so() -> None:
    registry = CollectorRegistry()
    metrics, value = Metrics(registry), registry.get_sample_value
    metrics.set_router_active(False, "the policy is vanilla")
    assert value("oea_router_active") == 0
    assert value("oea_router_limits", {"reason": "the policy is vanilla"}) == 1
    metrics.set_router_active(True, "")
    assert value("oea_router_active") == 1
    assert value("oea_router_limits", {"reason": "the policy is vanilla"}) == 0
