"""All-to-all backends: each rank routes its own rows, and what it chose is what SGLang
dispatches."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from oea_server.engine import forward_mode, fronts, options, runtime
from oea_server.engine.gathered import Ranks
from oea_server.routing import Policy
from oea_server.routing.tally import TOKENS
from tests.engine.test_gathered import batch
from tests.engine.test_guard import mode
from tests.engine.test_seams import route, select, with_device_knobs
from tests.engine.test_wishes import EXACT_WISH, request

DISPATCHERS = {
    "deepep": "deepep",
    "deepep_v2": "deepep_v2",
    "mooncake": "mooncake",
    "nixl": "nixl",
    "mori": "moriep",
    "flashinfer": "flashinfer",
    "pplx": "pplx",
}
"""A backend -> the module of `sglang.srt.layers.moe.token_dispatcher` that sends its rows."""


@pytest.fixture
def alone(now: runtime.Runtime) -> runtime.Runtime:
    """A rank of two that routes its own rows."""
    now.rows.ranks = Ranks(2, 0, together=False)
    return now


def forward(given: Any, layers: Callable[[Any], Any]) -> Any:
    runner = SimpleNamespace(is_draft_worker=False)
    return forward_mode.around_forward(
        lambda self, forward_batch: layers(forward_batch), runner, given
    )


def topk(hidden_states: torch.Tensor, router_logits: torch.Tensor, **_: Any) -> Any:
    """As SGLang's `TopK` of layer 5 would ask."""
    return select(router_logits)


@pytest.mark.parametrize("name", ["forward_deepep", "_forward_mega_moe"])
def test_a_block_hands_on_what_was_chosen_for_its_own_rows(
    alone: runtime.Runtime, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SGLang's own method, with a gate, and experts that tell what they were given."""
    from sglang.srt.eplb.expert_location_dispatch import ExpertLocationDispatchInfo
    from sglang.srt.layers.moe import mega_moe
    from sglang.srt.models import qwen3_moe

    if not hasattr(qwen3_moe.Qwen3MoeSparseMoeBlock, name):
        pytest.skip("this SGLang has no such way")

    rows, given = torch.randn(5, 16), []

    def experts(hidden_states: torch.Tensor, topk_output: Any) -> torch.Tensor:
        given.append((topk_output.topk_ids, topk_output.topk_weights))
        return hidden_states

    def mega(
        _: Any, hidden: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor, **__: Any
    ) -> torch.Tensor:
        given.append((ids, weights))
        return hidden

    monkeypatch.setattr(ExpertLocationDispatchInfo, "init_new", lambda **_: None)  # without EPLB
    monkeypatch.setattr(mega_moe, "is_mega_moe_experts_ready", lambda _: True, raising=False)
    monkeypatch.setattr(mega_moe, "run_mega_routed_experts", mega, raising=False)
    made = SimpleNamespace(
        gate=lambda hidden: (rows[: len(hidden)], None),
        topk=topk,
        layer_id=5,
        experts=experts,
        _mega_hidden_size=8,
        _mega_intermediate_size=8,
        _mega_top_k=4,
    )
    run = getattr(qwen3_moe.Qwen3MoeSparseMoeBlock, name)
    given_to = batch((5, 3), 0, num_token_non_padded=None)
    forward(given_to, lambda forward_batch: run(made, torch.zeros(5, 8), forward_batch))
    expected = route(rows, alone.policy)
    ((ids, weights),) = given
    assert torch.equal(ids, expected.ids)
    assert torch.equal(weights, expected.weights)
    assert alone.tally is not None
    assert int(alone.tally.sums[0, TOKENS]) == 5
    assert alone.clock is not None
    assert [tokens for tokens, _ in alone.clock.read()] == [5]


def test_the_experts_dispatch_what_they_are_given() -> None:
    """`FusedMoE.forward_impl` hands it to its dispatcher, whichever that is, and nothing in between
    chooses."""
    layer = ast.unparse(source("sglang.srt.layers.moe.fused_moe_triton.layer"))
    assert "self.dispatcher.dispatch(hidden_states=hidden_states, topk_output=topk_output)" in layer


@pytest.mark.parametrize("backend", options.ALL_TO_ALL)
def test_a_dispatcher_sends_rows_by_the_ids_that_were_chosen(backend: str) -> None:
    """Read in its source: none of them runs without GPUs and a library of its own."""
    if backend == "megamoe":
        text = ast.unparse(source("sglang.srt.layers.moe.mega_moe"))
        assert "topk_ids = topk_output.topk_ids" in text
        return
    module = f"sglang.srt.layers.moe.token_dispatcher.{DISPATCHERS[backend]}"
    if importlib.util.find_spec(module) is None:
        pytest.skip("this SGLang has no such backend")
    read = [
        each.attr
        for each in ast.walk(source(module))
        if isinstance(each, ast.Attribute)
        and isinstance(each.value, ast.Name)
        and each.value.id == "topk_output"
    ]
    assert "topk_ids" in read
    assert "topk_weights" in read
    assert {
        "topk_ids",
        "topk_weights",
        "router_logits",
        "format",
        "to_standard",
        "hidden_states",
        "topk_config",
        "num_token_non_padded",
        "_replace",
    } >= set(read)


def source(module: str) -> ast.Module:
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    return ast.parse(Path(spec.origin).read_text(encoding="utf-8"))


def test_deepeps_own_dispatchers_take_them_as_they_are(plugged: None) -> None:
    """The methods of SGLang's two classes, normal and low latency, up to where the library is
    called."""
    from sglang.srt.layers.moe.token_dispatcher import deepep
    from sglang.srt.layers.moe.topk import StandardTopKOutput

    weights, ids = torch.rand(5, 4), torch.randint(0, 16, (5, 4), dtype=torch.int32)
    chosen = StandardTopKOutput(weights, ids, torch.zeros(5, 16))
    sent: list[tuple[torch.Tensor, ...]] = []

    def core(*given: torch.Tensor) -> tuple[None, ...]:
        sent.append(given)
        return (None,) * 4

    buffer = SimpleNamespace(group_size=2)
    normal: Any = SimpleNamespace(use_fp8=False, async_finish=False)
    fast: Any = SimpleNamespace(num_experts=16, _get_buffer=lambda: buffer, _dispatch_core=core)
    _, by_normal, with_normal, _ = deepep._DeepEPDispatcherImplNormal.dispatch_a(
        normal, torch.zeros(5, 8), chosen
    )
    deepep._DeepEPDispatcherImplLowLatency.dispatch_a(fast, torch.zeros(5, 8), chosen)
    _, by_fast, with_fast = sent[0]
    for by, with_ in ((by_normal, with_normal), (by_fast, with_fast)):
        assert torch.equal(by, ids.long())
        assert torch.equal(with_, weights)


def test_a_rank_without_tokens_takes_no_padding_for_one(alone: runtime.Runtime) -> None:
    """It replays the graph that the longest rank needs, in which its real rows are a number on the
    device."""
    with_device_knobs(alone)
    with forward_mode.capturing(alone, mode("DECODE"), 8):
        real = alone.num_real(8)
    assert isinstance(real, torch.Tensor)
    for counts in ((5, 3), (0, 3), (8, 1)):
        forward(batch(counts, 0), lambda _: None)
        assert int(real) == counts[0]
    assert alone.clock is not None
    assert [tokens for tokens, _ in alone.clock.read()] == [5, 8]


def test_a_rank_decodes_though_another_prefills(alone: runtime.Runtime) -> None:
    given = batch((5, 40), 0, is_extend_in_batch=True)
    assert forward(given, lambda _: alone.step is not None)
    assert not forward(
        batch((5, 40), 1, "EXTEND", is_extend_in_batch=True), lambda _: alone.step is not None
    )


def test_a_rank_keeps_the_wishes_of_its_own_requests(alone: runtime.Runtime) -> None:
    """Without asking the others, whose rows have pools of their own."""
    rows = torch.randn(5, 16)
    held = [request("r0"), request("r1", EXACT_WISH), request("r2"), request("r3"), request("r4")]
    given = batch((5, 3), 0, rids=[each.rid for each in held], num_token_non_padded=None)
    weights, ids, _ = forward(given, lambda _: select(rows))
    own = route(rows, Policy.vanilla())
    assert torch.equal(ids[1], own.ids[1])
    assert torch.equal(weights[1], own.weights[1])
    assert not torch.equal(ids, own.ids)


@pytest.mark.parametrize("counts", [[5], [5, 3]])
def test_what_sglang_says_of_the_others_does_not_matter(
    alone: runtime.Runtime, counts: list[int]
) -> None:
    """One count, or each rank's, where all have to replay graphs of one size."""
    assert forward(batch((5, 3), 0, global_num_tokens_cpu=counts), lambda _: "ran") == "ran"


def test_megamoes_own_gate_is_refused_by_the_layers_that_have_it(
    plugged: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    mega_gate = pytest.importorskip("sglang.srt.layers.moe.mega_gate")
    from sglang.srt.models.deepseek_v2 import DeepseekV2MoE

    assert hasattr(DeepseekV2MoE, fronts.MEGA)
    assert fronts.OF_MEGA in ast.unparse(source(mega_gate.__name__))
    block = DeepseekV2MoE.__new__(DeepseekV2MoE)
    torch.nn.Module.__init__(block)
    for by, of, refused in (
        (True, fronts.OF_MEGA, True),
        (False, fronts.OF_MEGA, False),
        (True, "deepseek_v4", False),
    ):
        monkeypatch.setattr(fronts, "by_megamoe", lambda by=by: by)
        block.config = SimpleNamespace(model_type=of)
        assert bool(fronts.problem_of(block)) == refused
