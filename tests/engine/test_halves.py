"""Two-batch overlap: SGLang's own code cuts a step in two and runs both; each half is a pool of its
own tokens."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from sglang.srt.batch_overlap import operations_strategy, two_batch_overlap
from sglang.srt.model_executor.forward_batch_info import ForwardBatch, ForwardMode

from oea_server.engine import forward_mode, halves, options, plugin, runtime, wishers
from oea_server.engine.drafts import Drafts, depths
from oea_server.engine.gathered import Ranks
from oea_server.engine.routers import Router
from oea_server.engine.runtime import Runtime
from oea_server.routing import trees
from oea_server.routing.eager import route as route_eagerly
from oea_server.routing.tally import TOKENS
from oea_server.settings import Settings
from tests.engine.patched import IS_PATCHED
from tests.engine.test_guard import mode
from tests.engine.test_seams import route
from tests.transcript import REPLAY
from tests.unit.test_trees import links

pytestmark = pytest.mark.skipif(
    IS_PATCHED or not REPLAY,
    reason="driven in SGLang 0.5.23; where it is patched two-batch overlap is refused",
)
LAYERS, EXPERTS, K = (5, 6), 16, 4


@pytest.fixture
def now(plugged: None) -> Iterator[Runtime]:
    """A rank that routes alone, two layers, each guaranteed expert a token's best."""
    before = runtime.current
    adopted = Runtime(Settings(k0="1", min_batch=2))
    adopted.rows.ranks, adopted.rows.halved = Ranks(2, 0, together=False), True
    assert (
        adopted.adopt(
            [Router(layer, K, True, None) for layer in LAYERS], EXPERTS, torch.device("cpu")
        )
        == []
    )
    adopted.start_counting(EXPERTS, 1, torch.device("cpu"))
    runtime.current = adopted
    yield adopted
    runtime.current = before


@pytest.fixture
def sglang(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As much of a server as SGLang's code asks for on the way: rows of a rank's own, and no
    EPLB."""
    from sglang.srt.eplb.expert_location_dispatch import ExpertLocationDispatchInfo
    from sglang.srt.layers.attention.tbo_backend import TboAttnBackend
    from sglang.srt.layers.moe import utils
    from sglang.srt.model_executor.forward_context import ForwardContext, forward_context
    from sglang.srt.runtime_context import get_parallel

    monkeypatch.setattr(ExpertLocationDispatchInfo, "init_new", lambda *_, **__: None)
    monkeypatch.setattr(utils, "is_moe_input_scattered_across_dp_ranks", lambda: True)
    monkeypatch.setattr(two_batch_overlap, "is_tbo_enabled", lambda: True)
    monkeypatch.setattr(two_batch_overlap, "get_device", lambda: SimpleNamespace(device="cpu"))
    backend = TboAttnBackend.__new__(TboAttnBackend)
    backend.children = [SimpleNamespace(), SimpleNamespace()]
    with ExitStack() as stack:
        stack.enter_context(
            get_parallel().override(
                attn_tp_size=1, attn_cp_size=1, moe_dense_tp_size=None, tp_group=None
            )
        )
        stack.enter_context(forward_context(ForwardContext(attn_backend=backend)))
        yield


def batch(tokens: int, rows: int | None = None) -> Any:
    """A decode step of one rank of two, cut where SGLang's scheduler cuts it; padded behind its
    tokens by now."""
    from sglang.srt.layers.dp_attention import DpPaddingMode

    n = tokens if rows is None else rows
    given: Any = ForwardBatch(
        forward_mode=ForwardMode.DECODE,
        batch_size=n,
        input_ids=torch.zeros(n, dtype=torch.int64),
        req_pool_indices=torch.arange(n),
        seq_lens=torch.ones(n, dtype=torch.int64),
        out_cache_loc=torch.arange(n),
        seq_lens_sum=n,
    )
    given.seq_lens_cpu, given.positions = given.seq_lens, torch.arange(n)
    given.rids = [f"r{i}" for i in range(tokens)]
    given.dp_padding_mode, given.global_forward_mode = DpPaddingMode.MAX_LEN, ForwardMode.DECODE
    given.global_num_tokens_cpu, given.global_num_token_non_padded_cpu = [tokens, 3], tokens
    given.tbo_split_seq_index = two_batch_overlap.compute_split_seq_index(
        ForwardMode.DECODE, tokens, None, 1
    )
    return given


class Layer(torch.nn.Module):
    """SGLang's MoE block between operations that hand rows on; its router's logits are the rows
    themselves."""

    def __init__(self, layer: int) -> None:
        from sglang.srt.layers.moe.topk import TopK, TopKConfig
        from sglang.srt.models.qwen3_moe import Qwen3MoeSparseMoeBlock

        super().__init__()
        self.layer, self.is_layer_sparse = layer, True
        self.dispatched: list[list[Any]] = [[], []]
        dispatcher = two_batch_overlap.MaybeTboDeepEPDispatcher.__new__(
            two_batch_overlap.MaybeTboDeepEPDispatcher
        )
        dispatcher._inners = [Dispatcher(each) for each in self.dispatched]

        topk: Any = TopK.__new__(TopK)
        torch.nn.Module.__init__(topk)
        topk.layer_id, topk.is_draft, topk.enable_waterfill, topk.waterfill_balancer = (
            layer,
            False,
            False,
            None,
        )
        topk.topk_config, topk.forward = TopKConfig(top_k=K, torch_native=True), topk.forward_native
        block: Any = Qwen3MoeSparseMoeBlock.__new__(Qwen3MoeSparseMoeBlock)
        torch.nn.Module.__init__(block)
        block.layer_id, block.ep_size, block.topk = layer, 2, topk
        block.gate = lambda hidden: (hidden, None)
        block.experts = SimpleNamespace(
            dispatcher=dispatcher, run_moe_core=lambda dispatch_output: dispatch_output
        )
        self.mlp = block
        self.self_attn = SimpleNamespace(op_prepare=nothing, op_core=nothing)

    def op_comm_prepare_attn(self, state: Any, **given: Any) -> None:
        state.update(given)

    def op_comm_prepare_mlp(self, state: Any) -> None:
        state.hidden_states_mlp_input = state.pop("hidden_states")

    def op_comm_postprocess_layer(self, state: Any) -> dict[str, Any]:
        kept = ("forward_batch", "positions", "tbo_subbatch_index", "residual")
        rest = {name: state.pop(name) for name in kept}
        return {"hidden_states": state.pop("hidden_states_mlp_output"), **rest}


class Dispatcher:
    """Of one half: what it is given, it keeps, and gives back the rows that it came with."""

    def __init__(self, dispatched: list[Any]) -> None:
        self.dispatched = dispatched

    def dispatch_a(self, hidden_states: torch.Tensor, topk_output: Any) -> None:
        self.dispatched.append(topk_output)
        self.rows = hidden_states

    def dispatch_b(self) -> torch.Tensor:
        return self.rows

    def combine_a(self, combine_input: torch.Tensor) -> None:
        self.rows = combine_input

    def combine_b(self) -> torch.Tensor:
        return self.rows


def nothing(state: Any) -> None:
    """Of attention, which has no part in this."""


def run(given: Any, rows: torch.Tensor) -> list[Layer]:
    """SGLang's own way of a step through two layers, once it is prepared."""
    layers = [Layer(layer) for layer in LAYERS]
    strategies = [operations_strategy._compute_moe_qwen3_decode(layer) for layer in layers]
    strategy = operations_strategy.OperationsStrategy.concat(strategies)
    inputs = two_batch_overlap._model_forward_tbo_split_inputs_raw(
        rows, None, given.positions, given, None
    )
    two_batch_overlap.execute_overlapped_operations(
        inputs_arr=inputs,
        operations_arr=[strategy.operations] * 2,
        delta_stages=[0, strategy.tbo_delta_stages],
    )
    return layers


def forward(given: Any, layers: Callable[[Any], Any]) -> Any:
    runner = SimpleNamespace(is_draft_worker=False)
    return forward_mode.around_forward(
        lambda self, forward_batch: layers(forward_batch), runner, given
    )


def padded(given: Any, rows: int) -> Any:
    """What SGLang pads by then, in place."""
    fresh = batch(given.batch_size, rows)
    for name in (
        "input_ids",
        "req_pool_indices",
        "seq_lens",
        "seq_lens_cpu",
        "out_cache_loc",
        "positions",
    ):
        setattr(given, name, getattr(fresh, name))
    given.batch_size = rows
    return given


@pytest.mark.parametrize(
    ("tokens", "rows"), [(8, 8), (7, 7), (5, 8), (4, 4), (2, 6), (1, 1), (1, 4)]
)
def test_each_half_is_routed_from_its_own_tokens(
    now: Runtime, sglang: None, tokens: int, rows: int
) -> None:
    logits = torch.randn(rows, EXPERTS)
    split = tokens // 2

    def layers(given: Any) -> list[Layer]:
        two_batch_overlap.TboForwardBatchPreparer.prepare(padded(given, rows))
        return run(given, logits)

    ran = forward(batch(tokens), layers)
    pools = []
    for half, (start, end, real) in enumerate(((0, split, split), (split, rows, tokens - split))):
        for layer in ran:
            if start == end:
                assert not [
                    len(each.topk_ids) for each in layer.dispatched[half] if len(each.topk_ids)
                ]
                continue
            (chosen,) = layer.dispatched[half]
            if real < 2:  # a lone token is vanilla
                weights, ids = logits[start : start + real].softmax(-1).topk(K)
                assert torch.equal(chosen.topk_ids[:real].long(), ids)
                torch.testing.assert_close(
                    chosen.topk_weights[:real], weights / weights.sum(-1, keepdim=True)
                )
                pools.append(K)
                continue
            expected = route(logits[start : start + real], now.policy)
            assert torch.equal(chosen.topk_ids[:real], expected.ids)
            assert torch.equal(chosen.topk_weights[:real], expected.weights)
            assert (chosen.topk_ids[real:] == -1).all() or not chosen.topk_weights[real:].any()
            pools.append(int(expected.pool.sum()))
    assert now.tally is not None
    assert [int(each) for each in now.tally.sums[:, TOKENS]] == [tokens] * len(LAYERS)
    counted = now.tally.unique.sum(0)
    assert {n: int(counted[n]) for n in counted.nonzero().flatten().tolist()} == {
        n: pools.count(n) for n in set(pools)
    }
    assert now.clock is not None
    assert [batch for batch, _ in now.clock.read()] == [tokens]
    assert now.bypassed["schedule"] == int(tokens < 3)


@pytest.mark.parametrize("topk", [1, 2])
@pytest.mark.parametrize("requests", [7, 3, 2])
def test_drafts_are_verified_in_the_half_of_their_request(
    now: Runtime, sglang: None, requests: int, topk: int
) -> None:
    """A pass of three rows a request, chains or trees, every other one a fork; cut between two
    requests."""
    from sglang.srt.speculative.eagle_info import EagleVerifyInput

    width, rows = 3, 3 * requests
    given, of = batch(rows), Drafts(width, topk > 1)
    given.forward_mode = given.global_forward_mode = ForwardMode.TARGET_VERIFY
    given.batch_size, given.rids = requests, given.rids[:requests]
    for name in ("req_pool_indices", "seq_lens", "seq_lens_cpu"):
        setattr(given, name, getattr(given, name)[:requests])
    required = [
        each for each in dataclasses.fields(EagleVerifyInput) if each.default is dataclasses.MISSING
    ]
    fields = dict.fromkeys(each.name for each in required)
    told = {
        "draft_token": given.input_ids,
        "topk": topk,
        "draft_token_num": width,
        "spec_steps": width - 1,
    }
    trees_of = [links([-1, 0, i % 2]) for i in range(requests)]
    child, sibling = (torch.tensor(each) for each in zip(*trees_of, strict=True))
    told |= {"retrieve_next_token": child, "retrieve_next_sibling": sibling}
    given.spec_info = EagleVerifyInput(**{**fields, **told, "seq_lens_cpu": given.seq_lens_cpu})
    known = depths(rows, of, torch.device("cpu")).clone()
    if of.tree:
        trees.write(child, sibling, known)
    given.tbo_split_seq_index = two_batch_overlap.compute_split_seq_index(
        ForwardMode.TARGET_VERIFY, rows, None, width
    )
    logits = torch.randn(rows, EXPERTS)
    dispatched = forward(given, layers_of(logits))[0].dispatched
    split = requests // 2 * width
    for (chosen,), mine, guesses in zip(
        dispatched, (logits[:split], logits[split:]), (known[:split], known[split:]), strict=True
    ):
        if len(mine) == width:  # a lone request is vanilla
            assert torch.equal(chosen.topk_ids.long(), mine.topk(K).indices)
            continue
        expected = route(mine, now.policy, drafts=guesses)
        assert torch.equal(chosen.topk_ids, expected.ids)
        assert torch.equal(chosen.topk_weights, expected.weights)
    assert now.clock is not None
    assert now.clock.requests == requests


def test_a_schedule_reads_the_requests_of_a_half(now: Runtime, sglang: None) -> None:
    now.steering.change(now.steering.settings.model_copy(update={"k0": "1:4,4:1"}))
    logits = torch.randn(7, EXPERTS)

    def layers(given: Any) -> list[Layer]:
        two_batch_overlap.TboForwardBatchPreparer.prepare(given)
        return run(given, logits)

    three, four = forward(batch(7), layers)[0].dispatched
    assert torch.equal(three[0].topk_ids.long(), logits[:3].topk(K).indices)
    assert torch.equal(four[0].topk_ids, route(logits[3:], now.policy).ids)
    assert now.bypassed["schedule"] == 0
    forward(batch(6), layers_of(torch.randn(6, EXPERTS)))
    assert now.bypassed["schedule"] == 1


class Wished:
    """As much of a request as is asked for."""

    oea_wish = K


def test_a_request_gets_what_it_wishes_in_its_half(now: Runtime, sglang: None) -> None:
    """The fifth of six rows, which is the second of the other half."""
    wished = Wished()
    wishers.asking["r4"] = wished
    logits = torch.randn(6, EXPERTS)
    first, second = forward(batch(6), layers_of(logits))[0].dispatched
    (of_it,) = wishers.of(["r4"], as_it_is=now.steering.settings.wish_floor is not None)
    asked = torch.tensor([0, of_it, 0])
    assert torch.equal(first[0].topk_ids, route(logits[:3], now.policy).ids)
    assert torch.equal(second[0].topk_ids, route(logits[3:], now.policy, row_k0=asked).ids)
    assert torch.equal(second[0].topk_ids[1].sort().values, logits[4].topk(K).indices.sort().values)


def layers_of(logits: torch.Tensor) -> Callable[[Any], list[Layer]]:
    def layers(given: Any) -> list[Layer]:
        two_batch_overlap.TboForwardBatchPreparer.prepare(given)
        return run(given, logits)

    return layers


def test_a_step_that_runs_as_one_is_one_pool(now: Runtime, sglang: None) -> None:
    given, logits = batch(6), torch.randn(6, EXPERTS)
    given.tbo_split_seq_index = None

    def layers(whole: Any) -> Any:
        return Layer(5).mlp.topk(torch.zeros(6, 8), logits)

    assert torch.equal(forward(given, layers).topk_ids, route(logits, now.policy).ids)


@pytest.mark.parametrize("size", [8, 6, 2])
def test_a_graph_reads_how_many_tokens_each_half_has(
    now: Runtime, sglang: None, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Captured once with SGLang's own plug-in for graphs, and replayed by hand: tensors alone
    change in between."""
    from oea_server.routing.knobs import Knobs

    now.knobs = knobs = Knobs(dict.fromkeys(LAYERS, K), EXPERTS, torch.device("cpu"))
    now.rows.read_on_device()
    now.steering.change(now.steering.settings)
    read: list[torch.Tensor] = []
    asks: dict[int, torch.Tensor] = {}

    def captured(self: Runtime, router: Router, logits: torch.Tensor, *_: Any) -> Any:
        real = self.num_real(len(logits))
        asked = self.asked(len(logits))
        assert isinstance(real, torch.Tensor)
        assert asked is not None
        read.append(real)
        asks[real.data_ptr()] = asked
        return route_eagerly(logits, knobs, router.rule, num_real=real, layer=router.layer)

    monkeypatch.setattr(Runtime, "_route", captured)
    plugin, given = two_batch_overlap.TboCudaGraphRunnerPlugin(), batch(size)
    given.tbo_split_seq_index = given.global_num_token_non_padded_cpu = None
    with forward_mode.capturing(now, mode("DECODE"), size):
        plugin.capture_one_batch_size(given, size)
        run(given, torch.randn(size, EXPERTS))
    assert len(read) == len(LAYERS) * 2
    of_half = {each.data_ptr(): each for each in read}
    assert len(of_half) == 2
    split = size // 2
    assert now.rows.memory.asked is not None
    now.rows.memory.asked.copy_(torch.arange(len(now.rows.memory.asked)))
    assert [asks[address].tolist() for address in sorted(of_half)] == [
        list(range(split)),
        list(range(split, size)),
    ]
    now.rows.memory.asked.zero_()
    for tokens in range(size + 1):
        plugin.replay_prepare(ForwardMode.DECODE, size, tokens, None)
        forward(batch(tokens), lambda _: None)  # as a replay comes by: no layer runs
        first, second = (of_half[address] for address in sorted(of_half))
        assert (int(first), int(second)) == (min(split, tokens), max(0, tokens - split))
        logits = torch.randn(size, EXPERTS)
        for rows, real in ((logits[:split], first), (logits[split:], second)):
            if int(real) > 1:
                chosen = route_eagerly(rows, knobs, now.routers[5].rule, num_real=real, layer=5)
                assert torch.equal(
                    chosen.ids[: int(real)], route(rows[: int(real)], now.policy).ids
                )


def test_a_replayed_graph_is_cut_in_its_middle_not_in_the_steps(now: Runtime) -> None:
    """Two tokens in a graph of four are both in its first half, and share; a step without a graph
    has them apart."""
    given = batch(2)

    def cut(_: Any) -> tuple[int, ...]:
        assert now.step is not None
        return now.step.halves

    assert forward(given, cut) == (1, 1)
    now.graphs.sizes.add((4, 1))
    assert forward(given, cut) == (2, 0)
    assert now.bypassed["schedule"] == 1


def test_another_half_than_sglang_cut_ends_the_server(
    now: Runtime, sglang: None, ended: Callable[[], str]
) -> None:
    """Rows of which nobody has said how many are tokens."""

    def layers(given: Any) -> None:
        two_batch_overlap.TboForwardBatchPreparer.prepare(given)
        first, _ = given.tbo_children
        # no longer what the router is told
        first.num_token_non_padded = first.num_token_non_padded.clone()
        first.tbo_padded_len = 2
        Layer(5).mlp.topk(torch.zeros(3, 8), torch.randn(3, EXPERTS))

    with pytest.raises(SystemExit):
        forward(batch(6), layers)
    assert (
        "a router got 3 rows in a decode step of 6: nobody knows which of them are tokens"
        in ended()
    )


def test_what_is_refused(plugged: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def why(**given: Any) -> str | None:
        return options.halved({"enable_two_batch_overlap": True, **given}.get, halves.untold)

    assert why(moe_a2a_backend="deepep") is None
    assert "without --moe-a2a-backend" in str(why(moe_a2a_backend="none"))
    monkeypatch.setattr(plugin, "patched", True)
    assert "a patched SGLang does not tell" in str(why(moe_a2a_backend="deepep"))
    assert options.halved({"moe_a2a_backend": "none"}.get, halves.untold) is None
    monkeypatch.setattr(plugin, "patched", False)
    monkeypatch.setattr(plugin, "resolve", lambda _: SimpleNamespace())
    assert "was never checked; install 0.5.23" in str(why(moe_a2a_backend="deepep"))
