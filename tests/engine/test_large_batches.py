"""What CUDA graphs hold and what a step runs above the rows of a GPU's launch. No GPU: the host
decides."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from oea_server.engine import limits, runtime
from oea_server.engine.compiling import compile_ahead
from oea_server.engine.routers import Router
from oea_server.engine.step import Step
from oea_server.routing import fused
from oea_server.routing.device_tally import DeviceTally
from oea_server.routing.knobs import Knobs
from oea_server.settings import Settings

CPU = torch.device("cpu")
CUDA = torch.device("cuda")
MOST = fused.MAX_BATCH
SIZES = (1, 8, 64, 512, MOST, MOST + 8, 2 * MOST)


@pytest.fixture
def now(plugged: None, request: pytest.FixtureRequest) -> Iterator[runtime.Runtime]:
    """A runtime as on a GPU: its knobs and counters are tensors, if tensors of a CPU; started as
    the test says."""
    adopted = runtime.Runtime(
        Settings(k0="1", min_batch=2, policy=getattr(request, "param", "oea"))
    )
    assert adopted.adopt([Router(5, 4, True, None)], 16, CPU) == []
    adopted.start_counting(16, 1, CPU)
    adopted.device, adopted.knobs, adopted.shadow_knobs = (
        CUDA,
        Knobs({5: 4}, 16, CPU),
        Knobs({5: 4}, 16, CPU),
    )
    assert adopted.steering.change(adopted.steering.settings) is None
    before, runtime.current = runtime.current, adopted
    yield adopted
    runtime.current = before


def capture(now: runtime.Runtime, sizes: tuple[int, ...] = SIZES) -> dict[int, bool]:
    """Whether a graph of each size holds SGLang's own top k."""
    held = {}
    for size in reversed(sizes):
        with now.decoding(Step(size, counted=False, capturing=True)):
            held[size] = now.is_vanilla(now.routers[5])
    return held


def bypassed(now: runtime.Runtime, batch: int) -> list[str]:
    before = dict(now.bypassed)
    with now.decoding(Step(batch, counted=True)):
        pass
    return [why for why, times in now.bypassed.items() if times > before[why]]


def test_graphs_above_the_launch_hold_sglangs_own_top_k(now: runtime.Runtime) -> None:
    assert capture(now) == {size: size > fused.MAX_BATCH for size in SIZES}
    assert now.graphs.held == "ours"


@pytest.mark.parametrize("now", ["vanilla", "shadow"], indirect=True)
def test_a_server_started_without_our_routing_has_none_in_any_graph(now: runtime.Runtime) -> None:
    assert all(capture(now).values())
    assert now.graphs.held == now.steering.settings.policy


@pytest.mark.parametrize(
    ("batch", "reason"), [(2, []), (MOST, []), (MOST + 1, ["rows"]), (3 * MOST, ["rows"])]
)
def test_a_step_above_the_launch_is_counted_as_bypassed(
    now: runtime.Runtime, batch: int, reason: list[str]
) -> None:
    assert bypassed(now, batch) == reason  # without graphs
    capture(now)
    assert bypassed(now, batch) == reason


def test_a_step_is_as_large_as_the_graph_that_it_replays(now: runtime.Runtime) -> None:
    capture(now, (1, 8, 100, 2 * MOST))
    assert bypassed(now, 100) == []
    assert bypassed(now, 101) == ["rows"]  # padded to the next
    now.graphs.pads = False
    assert bypassed(now, 102) == []  # no graph of this size: the layers run, on 102 rows


@pytest.mark.parametrize("batch", [MOST + 1, 2 * MOST])
def test_above_the_launch_no_layer_is_routed_in_torchs_operators(
    now: runtime.Runtime, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "way", lambda *_: pytest.fail("routed by us"))
    for step in (Step(batch, counted=True), Step(batch, counted=False, capturing=True)):
        with now.decoding(step):
            assert now.is_vanilla(now.routers[5])
            assert now.tally_of_step is None
            now.route_shadow(now.routers[5], torch.zeros(batch, 16))


def test_what_graphs_hold_outlives_a_recapture_after_a_live_switch(now: runtime.Runtime) -> None:
    first = capture(now)
    assert now.steering.change(Settings(policy="vanilla")) is None
    assert capture(now) == first
    assert now.graphs.held == "ours"
    assert now.steering.change(Settings(k0="2")) is None  # and back


@pytest.mark.parametrize("now", ["shadow"], indirect=True)
def test_so_do_those_of_a_server_that_only_counts(now: runtime.Runtime) -> None:
    capture(now)
    assert now.steering.change(Settings(policy="vanilla")) is None
    capture(now)
    assert now.graphs.held == "shadow"
    assert now.steering.change(Settings(policy="shadow")) is None


def test_every_step_of_a_gpu_counts_by_the_devices_word(now: runtime.Runtime) -> None:
    """One kernel for warm-up, health checks, graphs and traffic: the first health check compiles
    nothing."""
    for counted, capturing in ((True, False), (False, False), (False, True)):
        with now.decoding(Step(8, counted=counted, capturing=capturing)):
            assert now.tally_of_step is now.tally
            assert now.tally is not None
            assert int(now.tally.counting) == counted


def test_a_rank_that_does_not_report_counts_nothing_in_the_same_kernel(
    now: runtime.Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        runtime,
        "tally_on",
        lambda device, layers, n, ranks, placed: DeviceTally(layers, n, ranks, CPU, placed),
    )
    now.start_counting(16, 1, CUDA, reports=False)
    assert now.clock is None
    with now.decoding(Step(8, counted=True)):
        assert isinstance(now.tally_of_step, DeviceTally)
        assert int(now.tally_of_step.counting) == 0


@pytest.mark.parametrize(
    ("experts", "k", "bound"), [(1025, 8, "1025 experts"), (512, 33, "33 experts per token")]
)
def test_what_no_launch_takes_is_left_to_sglang_and_said(experts: int, k: int, bound: str) -> None:
    refused = limits.problem_of(CUDA, experts, k)
    assert refused is not None
    assert bound in refused
    assert limits.problem_of(CPU, experts, k) is None
    assert limits.problem_of(CUDA, 1024, 32) is None


def test_doctor_says_so_on_a_gpu_only() -> None:
    assert f"more than {MOST} rows" in str(limits.fact("cuda"))
    assert limits.fact("cpu") is None


def test_a_gpus_kernels_are_compiled_before_traffic(
    now: runtime.Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One call for each kind of router, with what the steps have."""
    now.routers[6] = Router(6, 2, False, None)
    asked = []
    monkeypatch.setattr(
        fused, "warm_up", lambda dtype, knobs, rule, **how: asked.append((dtype, knobs, rule, how))
    )
    compile_ahead(now, torch.bfloat16)
    assert [(rule.k, rule.renormalize) for _, _, rule, _ in asked] == [(4, True), (2, False)]
    for dtype, knobs, _, how in asked:
        assert (dtype, knobs) == (torch.bfloat16, now.knobs)
        assert how["tally"] is now.tally
        assert isinstance(how["num_real"], torch.Tensor)
    for tally in (now.tally, now.shadow_tally):
        assert tally is not None
        assert tally.records is not None  # what a capture allocated, the next could overwrite


def test_graphs_that_were_captured_without_a_budget_cannot_get_one(now: runtime.Runtime) -> None:
    """On one rank what holds the pool to a budget is a launch of its own; until there are graphs,
    it can be chosen."""
    budget = Settings(k0="1", pool="budget", rank_budget=4)
    assert now.steering.change(budget) is None
    assert now.steering.change(Settings(k0="1")) is None
    capture(now)
    assert "start anew with --oea-pool budget" in str(now.steering.change(budget))
    assert now.steering.settings.pool != "budget"


def test_with_one_they_can_do_without(now: runtime.Runtime) -> None:
    budget = Settings(k0="1", pool="budget", rank_budget=4)
    assert now.steering.change(budget) is None
    capture(now)
    for settings in (Settings(k0="1"), budget):
        assert now.steering.change(settings) is None
