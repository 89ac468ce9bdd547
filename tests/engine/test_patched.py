"""What a patched SGLang calls, where it was patched to. `test_conformance` runs this in a patched
copy."""

from __future__ import annotations

import inspect
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from oea_server.engine import drafts, runtime
from tests.engine.patched import IS_PATCHED
from tests.engine.test_seams import select

pytestmark = pytest.mark.skipif(
    not IS_PATCHED, reason="SGLang is as released; test_conformance runs this in a copy"
)


def mode(name: str) -> Any:
    from sglang.srt.model_executor.forward_batch_info import ForwardMode

    return ForwardMode[name]


def batch(name: str, size: int, rids: list[str] | None = None) -> Any:
    return SimpleNamespace(forward_mode=mode(name), batch_size=size, rids=rids)


def silu_and_mul(gate_up: torch.Tensor) -> torch.Tensor:
    gate, up = gate_up.chunk(2, -1)
    return torch.nn.functional.silu(gate) * up


def test_a_decode_pass_is_a_step_of_ours(now: runtime.Runtime) -> None:
    from sglang.srt.layers.moe.batch_routing import routed_pass

    with routed_pass(batch("DECODE", 6, ["a"]), False):
        assert now.step is not None
        assert (now.step.batch, now.step.counted, now.step.capturing) == (6, True, False)
    assert now.step is None
    with routed_pass(batch("DECODE", 6, ["HEALTH_CHECK_1"]), False):
        assert now.step is not None
        assert not now.step.counted


def test_other_passes_and_draft_workers_are_sglangs_own(now: runtime.Runtime) -> None:
    from sglang.srt.layers.moe.batch_routing import routed_pass

    with routed_pass(batch("EXTEND", 2, ["a"]), False):
        assert now.step is None
    assert now.bypassed["prefill"] == 1
    with routed_pass(batch("DECODE", 6, ["a"]), True):
        assert now.step is None


def test_capture_is_a_step_that_does_not_count(now: runtime.Runtime) -> None:
    from sglang.srt.layers.moe.batch_routing import routed_capture

    with routed_capture(mode("DECODE"), 8, False):
        assert now.step is not None
        assert (now.step.batch, now.step.counted, now.step.capturing) == (8, False, True)
    now.rows.captured = drafts.Drafts(3)  # as `around_capture` has read it off the runner
    with routed_capture(mode("TARGET_VERIFY"), 8, False):
        assert now.step is not None
        assert (now.step.batch, now.step.per_request, now.step.capturing) == (24, 3, True)
    with routed_capture(mode("DLLM_EXTEND"), 8, False):
        assert now.step is None


def test_a_verify_pass_is_a_step_of_all_its_rows(now: runtime.Runtime) -> None:
    from sglang.srt.layers.moe.batch_routing import routed_pass

    now.rows.forward_batch = batch("TARGET_VERIFY", 2, ["a"])  # as the guard has it
    now.rows.forward_batch.spec_info = SimpleNamespace(num_tokens_per_req=4, tree_topk=-1)
    try:
        with routed_pass(now.rows.forward_batch, False):
            assert now.step is not None
            assert (now.step.batch, now.step.requests, now.step.tree) == (8, 2, True)
    finally:
        now.rows.forward_batch = None


def test_capture_goes_through_the_runner(now: runtime.Runtime) -> None:
    """`capture_one_shape` asks for the context of its size, and captures inside it."""
    from sglang.srt.model_executor.runner import decode_cuda_graph_runner

    # our hook around it reads how many rows each request has
    source = inspect.unwrap(decode_cuda_graph_runner.DecodeCudaGraphRunner.capture_one_shape)
    assert "routed_capture" in source.__code__.co_names


def test_the_count_of_real_rows_is_written_before_a_pass_and_stays_one_tensor(
    now: runtime.Runtime,
) -> None:
    from sglang.srt.layers.moe.batch_routing import real_rows, routed_pass

    rows = real_rows(torch.device("cpu"))
    for size in (5, 3):
        with routed_pass(batch("DECODE", size, ["a"]), False):
            assert int(rows) == size
    with routed_pass(batch("EXTEND", 40, ["a"]), False):
        assert int(rows) == 3
    assert real_rows(torch.device("cpu")) is rows


def test_what_a_graph_captures_reads_sglangs_count(
    plugged: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, where the knobs are tensors: rows that pad are inert by SGLang's number, not by
    ours."""
    from sglang.srt.layers.moe.batch_routing import real_rows, routed_pass

    from oea_server.engine.routers import Router
    from oea_server.routing import eager, route
    from oea_server.routing.fastest import Way
    from oea_server.routing.knobs import Knobs
    from oea_server.settings import Settings

    before = runtime.current
    assert before is not None
    assert before.rows.real_rows is real_rows
    now = runtime.Runtime(Settings(k0="1", min_batch=2), before.rows.real_rows)
    assert now.adopt([Router(5, 4, True, None)], 16, torch.device("cpu")) == []
    now.knobs = Knobs({5: 4}, 16, torch.device("cpu"))
    now.rows.read_on_device()
    # it reads knobs, as a launch does
    monkeypatch.setattr(runtime, "way", lambda *_: Way("eager", eager.route, ""))
    now.steering.change(now.steering.settings)
    logits = torch.randn(8, 16)
    now.rows.forward_batch = batch("DECODE", 5)  # which SGLang has padded to 8 rows
    now.rows.forward_batch.input_ids = torch.zeros(8)
    try:
        runtime.current = now
        with routed_pass(batch("DECODE", 5, ["a"]), False):
            chosen = select(logits)
    finally:
        runtime.current = before
    expected = route(logits[:5], now.policy, k=4)
    assert torch.equal(chosen.topk_ids[:5], expected.ids)
    assert not chosen.topk_weights[5:].any()


def test_another_plug_ins_routing_function_stays(now: runtime.Runtime) -> None:
    from sglang.srt.layers.moe.batch_routing import routed_pass
    from sglang.srt.layers.moe.topk import TopKConfig, select_experts

    def theirs(hidden_states: Any, gating_output: Any, topk: int, renormalize: bool) -> Any:
        return torch.ones(6, 4), torch.arange(4, dtype=torch.int32).repeat(6, 1)

    config = TopKConfig(top_k=4, torch_native=True, custom_routing_function=theirs)
    with routed_pass(batch("DECODE", 6, ["a"]), False):
        chosen = select_experts(torch.zeros(6, 8), torch.randn(6, 16), config, layer_id=5)
    assert chosen.topk_ids.tolist() == [[0, 1, 2, 3]] * 6


@pytest.mark.parametrize("absent", [0, 3, 24])
def test_an_id_of_minus_one_is_no_expert(absent: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both of SGLang's native experts, against a loop over rows and slots."""
    from sglang.srt.layers.moe import fused_moe_native as native

    tokens, k, experts, hidden, inner = 6, 4, 8, 16, 12
    torch.manual_seed(1)
    layer = SimpleNamespace(
        num_experts=experts,
        w13_weight=torch.randn(experts, 2 * inner, hidden),
        w2_weight=torch.randn(experts, hidden, inner),
        moe_runner_config=SimpleNamespace(
            activation="silu",
            gemm1_alpha=None,
            gemm1_clamp_limit=None,
            apply_router_weight_on_input=False,
        ),
    )
    x = torch.randn(tokens, hidden)
    ids = torch.stack([torch.randperm(experts)[:k] for _ in range(tokens)]).int()
    ids.view(-1)[torch.randperm(tokens * k)[:absent]] = -1
    weights = torch.rand(tokens, k)
    expected = torch.zeros(tokens, hidden)
    for row in range(tokens):
        for slot in range(k):
            if (expert := int(ids[row, slot])) >= 0:
                expected[row] += weights[row, slot] * (
                    layer.w2_weight[expert] @ silu_and_mul(layer.w13_weight[expert] @ x[row])
                )
    topk = (weights, ids, None)
    given = SimpleNamespace(hidden_states=x, topk_output=topk)
    assert torch.allclose(
        native.fused_moe_forward_native(layer, given).hidden_states, expected, atol=1e-4
    )
    # its own looks for the kernel of the machine that it was built for
    monkeypatch.setattr(native, "SiluAndMul", lambda: silu_and_mul)
    got = native.moe_forward_native(layer, x, topk, layer.moe_runner_config)
    assert torch.allclose(got, expected, atol=1e-4)
