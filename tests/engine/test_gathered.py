"""DP attention without an all-to-all backend: all ranks route all ranks' rows, each alike, idle
ones too."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from oea_server.engine import drafts, forward_mode, gathered, guard, limits, runtime
from oea_server.engine.drafts import Drafts
from oea_server.engine.gathered import Ranks
from oea_server.engine.step import Step
from oea_server.routing import Router as Rule
from oea_server.routing.eager import route as route_eagerly
from oea_server.routing.tally import TOKENS
from tests.engine.test_guard import mode
from tests.engine.test_seams import route, select, with_device_knobs

MAX_LEN, SUM_LEN = "MAX_LEN", "SUM_LEN"
"""`sglang.srt.layers.dp_attention.DpPaddingMode`."""


def batch(counts: tuple[int, ...], own: int, name: str | None = None, **more: Any) -> Any:
    """A rank's `ForwardBatch` as it comes to `ModelRunner.forward`."""
    mine = counts[own]
    return SimpleNamespace(
        **{
            "forward_mode": mode(name or ("DECODE" if mine else "IDLE")),
            "batch_size": mine,
            "input_ids": torch.zeros(mine, dtype=torch.int64),
            "rids": [f"r{i}" for i in range(mine)],
            "global_num_tokens_cpu": list(counts),
            "is_extend_in_batch": False,
            "global_dp_buffer_len": None,
            **more,
        }
    )


def pad(given: Any, padding: str, attn_tp_size: int = 1) -> list[int]:
    """What `ForwardBatch.prepare_mlp_sync_batch` does to the counts, in place: the slots."""
    aligned = [-(-count // attn_tp_size) * attn_tp_size for count in given.global_num_tokens_cpu]
    slots = [max(aligned)] * len(aligned) if padding == MAX_LEN else aligned
    given.global_num_tokens_cpu, given.global_dp_buffer_len = slots, sum(slots)
    return slots


def laid_out(rows: torch.Tensor, counts: tuple[int, ...], slots: list[int]) -> torch.Tensor:
    """The gathered buffer: each rank's rows in its slot, and behind them whatever was there."""
    buffer = 9 * torch.randn(sum(slots), rows.shape[1])
    start = first = 0
    for count, slot in zip(counts, slots, strict=True):
        buffer[start : start + count] = rows[first : first + count]
        start, first = start + slot, first + count
    return buffer


def at(counts: tuple[int, ...], slots: list[int]) -> torch.Tensor:
    return gathered.marked(counts, tuple(slots), torch.device("cpu"))


def forward(now: runtime.Runtime, given: Any, layers: Callable[[Any], Any]) -> Any:
    """Through our seam."""
    runner = SimpleNamespace(is_draft_worker=False)
    return forward_mode.around_forward(
        lambda self, forward_batch: layers(forward_batch), runner, given
    )


@pytest.mark.parametrize("padding", [MAX_LEN, SUM_LEN])
@pytest.mark.parametrize("attn_tp_size", [1, 2])
@pytest.mark.parametrize("counts", [(3, 3), (5, 2), (0, 4), (4, 0), (1, 2, 0, 7)])
def test_every_rank_chooses_as_one_server_of_the_same_rows_does(
    now: runtime.Runtime, counts: tuple[int, ...], padding: str, attn_tp_size: int
) -> None:
    rows = torch.randn(sum(counts), 16)
    expected = route(rows, now.policy)
    for own in range(len(counts)):
        now.rows.ranks = Ranks(len(counts), own)
        given = batch(counts, own)

        def layers(forward_batch: Any) -> tuple[Any, list[int]]:
            slots = pad(forward_batch, padding, attn_tp_size)
            return select(laid_out(rows, counts, slots)), slots

        chosen, slots = forward(now, given, layers)
        real = at(counts, slots)
        assert torch.equal(chosen.topk_ids[real], expected.ids)
        assert torch.equal(chosen.topk_weights[real], expected.weights)
        assert not chosen.topk_weights[~real].any()
        assert expected.pool[chosen.topk_ids.long()].all()


def test_a_schedule_reads_the_sum_over_the_ranks(now: runtime.Runtime) -> None:
    now.steering.change(now.steering.settings.model_copy(update={"k0": "1:4,6:2"}))
    for counts, k0 in (((3, 2), 4), ((3, 3), 2), ((0, 6), 2)):
        now.rows.ranks = Ranks(2, 1)
        rows = torch.randn(sum(counts), 16)

        def layers(
            forward_batch: Any, rows: torch.Tensor = rows, counts: tuple[int, ...] = counts
        ) -> Any:
            return select(laid_out(rows, counts, pad(forward_batch, SUM_LEN)))

        chosen = forward(now, batch(counts, 1), layers)
        pool = route(rows, now.policy).pool if k0 == 2 else None
        taken = set(chosen.topk_ids.flatten().tolist())
        expected = (
            set(rows.topk(4).indices.flatten().tolist())
            if pool is None
            else set(pool.nonzero().flatten().tolist())
        )
        assert taken == expected


def test_a_step_is_counted_once_by_the_first_rank_that_has_tokens(now: runtime.Runtime) -> None:
    """It knows whose they are. So health checks and warm-ups count nowhere, and idle ranks do not
    guess."""
    rows = torch.randn(5, 16)
    for counts, rids, speaker in (
        ((3, 2), {0: ["a", "b", "c"], 1: ["d", "e"]}, 0),
        ((0, 5), {1: list("abcde")}, 1),
        ((1, 4), {0: ["OEA_WARMUP_1"], 1: list("abcd")}, None),
        ((0, 5), {1: [f"HEALTH_CHECK_{i}" for i in range(5)]}, None),
    ):
        for own in range(2):
            now.rows.ranks = Ranks(2, own)
            assert now.tally is not None
            before = int(now.tally.sums[0, TOKENS])

            def layers(forward_batch: Any, counts: tuple[int, ...] = counts) -> Any:
                return select(laid_out(rows, counts, pad(forward_batch, MAX_LEN)))

            chosen = forward(now, batch(counts, own, rids=rids.get(own, [])), layers)
            assert torch.equal(
                chosen.topk_ids[at(counts, [max(counts)] * 2)], route(rows, now.policy).ids
            )
            assert int(now.tally.sums[0, TOKENS]) - before == (5 if own == speaker else 0)
            assert now.clock is not None
            assert [tokens for tokens, _ in now.clock.read()] == ([5] if own == speaker else [])


@pytest.mark.parametrize(("own", "name"), [(0, "DECODE"), (1, "EXTEND"), (2, "IDLE")])
def test_where_one_rank_prefills_none_routes(now: runtime.Runtime, own: int, name: str) -> None:
    now.rows.ranks = Ranks(3, own)
    logits = torch.randn(12, 16)
    given = batch((3, 9, 0), own, name, is_extend_in_batch=True)
    chosen = forward(now, given, lambda _: select(logits))
    assert torch.equal(chosen.topk_ids, logits.softmax(-1).topk(4).indices)
    assert {why: times for why, times in now.bypassed.items() if times} == (
        {"mixed": 1} if own == 0 else {}
    )


@pytest.mark.parametrize("tree", [False, True])
@pytest.mark.parametrize("padding", [MAX_LEN, SUM_LEN])
@pytest.mark.parametrize("attn_tp_size", [1, 3])
@pytest.mark.parametrize("own", [0, 1, 2])
def test_drafts_are_verified_as_one_server_of_the_same_rows_does(
    now: runtime.Runtime, own: int, padding: str, attn_tp_size: int, tree: bool
) -> None:
    """Four rows of each request; on an idle rank, whose own batch does not tell; in slots of no
    whole request."""
    counts, requests, of = (8, 0, 4), [2, 0, 1], Drafts(4, tree)
    now.rows.ranks = Ranks(3, own, tree=tree)
    # a schedule counts requests
    now.steering.change(now.steering.settings.model_copy(update={"k0": "1:4,3:2"}))
    rows = torch.randn(sum(counts), 16)
    told = {"original_global_num_tokens_cpu": requests, "batch_size": requests[own]}
    if counts[own]:
        told["spec_info"] = SimpleNamespace(tree_topk=2 if tree else 1, num_tokens_per_req=4)
    given = batch(counts, own, "TARGET_VERIFY" if counts[own] else "IDLE", **told)

    def layers(forward_batch: Any) -> tuple[Any, list[int], Step | None]:
        slots = pad(forward_batch, padding, attn_tp_size)
        return select(laid_out(rows, counts, slots)), slots, now.step

    chosen, slots, step = forward(now, given, layers)
    assert step is not None
    assert (step.requests, step.of_ranks) == (3, counts)
    expected = route(rows, now.policy, drafts=drafts.depths(12, of, torch.device("cpu")))
    real = at(counts, slots)
    assert torch.equal(chosen.topk_ids[real], expected.ids)
    assert torch.equal(chosen.topk_weights[real], expected.weights)
    assert not chosen.topk_weights[~real].any()


def test_a_pass_without_any_tokens_is_no_step(now: runtime.Runtime) -> None:
    now.rows.ranks = Ranks(2, 0)
    assert forward(now, batch((0, 0), 0), lambda _: now.step) is None


@pytest.mark.parametrize(
    ("counts", "more", "said"),
    [
        ((4, 3), {"batch_size": 5}, "a decode step of 5 requests has 4 rows"),
        ((4,), {}, "of 2 is declared to have these tokens: 4"),
        ((4, 3, 2), {}, "of 2 is declared to have these tokens: 4, 3, 2"),
        ((4, 3), {"global_num_tokens_cpu": None}, "of 2 is declared to have these tokens: none"),
    ],
)
def test_counts_that_cannot_be_end_it(
    now: runtime.Runtime,
    ended: Callable[[], str],
    counts: tuple[int, ...],
    more: dict[str, Any],
    said: str,
) -> None:
    now.rows.ranks = Ranks(2, 0)
    with pytest.raises(SystemExit):
        forward(now, batch(counts, 0, **more), lambda _: "ran")
    assert said in ended()


@pytest.mark.parametrize("rows", [4, 7, 9, 10])
def test_a_layer_that_sees_other_rows_than_the_slots_ends_it(
    now: runtime.Runtime, ended: Callable[[], str], rows: int
) -> None:
    """This rank's own alone, say: a layout that nobody has looked at."""
    now.rows.ranks = Ranks(2, 0)

    def layers(forward_batch: Any) -> None:
        assert pad(forward_batch, MAX_LEN) == [4, 4]
        select(torch.randn(rows, 16))

    with pytest.raises(SystemExit):
        forward(now, batch((4, 3), 0), layers)
    assert f"a router got {rows} rows in a decode step of 7" in ended()


def test_a_graph_reads_its_mask_on_the_device(now: runtime.Runtime) -> None:
    """The same calls that capture records, replayed by hand: only tensors change in between."""
    now.rows.ranks = Ranks(2, 1)
    with_device_knobs(now)
    with forward_mode.capturing(now, mode("DECODE"), 4):
        assert not now.is_vanilla(now.routers[5])
        captured, knobs = now.num_real(8), now.knobs
        guard.check(now, 8)
        assert isinstance(captured, torch.Tensor)
        assert captured.all()
    with forward_mode.capturing(now, mode("DECODE"), 2):
        assert now.num_real(4) is not None
    assert knobs is not None
    for counts in ((3, 1), (0, 4), (3, 1), (4, 4)):
        rows, slots = torch.randn(sum(counts), 16), [4, 4]
        logits = laid_out(rows, counts, slots)

        def replay(_: Any, logits: torch.Tensor = logits) -> Any:
            return route_eagerly(logits, knobs, Rule(4), num_real=captured, layer=5)

        found = forward(now, batch(counts, 1), replay)
        real, expected = at(counts, slots), route(rows, now.policy)
        assert torch.equal(found.ids[real], expected.ids)
        assert torch.equal(found.pool, expected.pool)


def test_a_graph_that_is_captured_later_changes_what_a_step_is_padded_to(
    now: runtime.Runtime,
) -> None:
    now.rows.ranks = Ranks(2, 0)
    with_device_knobs(now)
    for size in (8, 4):
        with forward_mode.capturing(now, mode("DECODE"), size):
            pass
        forward(now, batch((3, 1), 0), lambda _: None)
        assert now.rows.memory.mask is not None
        assert now.rows.memory.mask[: 2 * size].tolist() == at((3, 1), [size, size]).tolist()


def test_steps_above_the_rows_of_the_fused_launch_are_sglangs_on_all_ranks(
    now: runtime.Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "beyond", lambda device, rows, *_: "" if rows <= 8 else "too many")
    now.rows.ranks = Ranks(2, 0)
    assert now.bypass(5, rows=8) is None
    with now.decoding(Step(5, counted=True, of_ranks=(4, 1))):
        assert not now.is_vanilla(now.routers[5])
    with now.decoding(Step(5, counted=True, of_ranks=(5, 0))):
        assert now.is_vanilla(now.routers[5])
    assert now.bypassed["rows"] == 1


def test_it_is_read_from_sglangs_own_widths(plugged: None, monkeypatch: pytest.MonkeyPatch) -> None:
    from sglang.srt import runtime_context
    from sglang.srt.layers.moe import utils

    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(gathered, "grows_trees", lambda: False)
    control = {"enable_dp_attention_local_control_broadcast": False}
    for size, scattered, expected in (
        (1, False, None),
        (4, False, Ranks(4, 2)),
        (4, True, Ranks(4, 2, False)),
    ):
        parallel = SimpleNamespace(attn_dp_size=size, attn_dp_rank=2, attn_tp_size=1, **control)
        monkeypatch.setattr(runtime_context, "get_parallel", lambda parallel=parallel: parallel)
        monkeypatch.setattr(gathered, "routed_alone", lambda scattered=scattered: scattered)
        assert gathered.ranks() == expected
        assert gathered.frozen() is None
    parallel = SimpleNamespace(attn_dp_size=2, attn_dp_rank=0, attn_tp_size=2)
    monkeypatch.setattr(runtime_context, "get_parallel", lambda: parallel)
    monkeypatch.setattr(utils, "get_moe_a2a_backend", lambda: utils.MoeA2ABackend("deepep"))
    with pytest.raises(
        ValueError, match=r"^--moe-a2a-backend deepep: deals the rows of a batch out"
    ):
        gathered.ranks()
    parallel = SimpleNamespace(attn_dp_size=2, enable_dp_attention_local_control_broadcast=True)
    monkeypatch.setattr(runtime_context, "get_parallel", lambda: parallel)
    assert str(gathered.frozen()).startswith(
        "--enable-dp-attention-local-control-broadcast: a request for a change"
    )
