"""Verify passes of speculative decoding through our seams: which rows are drafts, and what each row
may see."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from oea_server.engine import drafts, forward_mode, launch, plugin, rejected, runtime
from oea_server.engine.drafts import Drafts
from oea_server.engine.routers import Router
from oea_server.engine.steering import DRAFTED
from oea_server.engine.step import Step
from oea_server.routing import Router as Rule
from oea_server.routing import eager, host, trees
from oea_server.routing.fastest import Way
from oea_server.routing.knobs import Knobs
from oea_server.settings import Settings
from tests.engine.test_guard import mode
from tests.engine.test_options import server_args
from tests.engine.test_seams import select
from tests.transcript import REPLAY
from tests.unit.test_trees import ancestors, links

CPU = torch.device("cpu")
RULE, WIDTH = Rule(4), 4
CHAIN, TREE = Drafts(WIDTH), Drafts(WIDTH, tree=True)
PARENTS = ([-1, 0, 1, 1], [-1, 0, 0, 2], [-1, 0, 1, 2])
"""In the trees of three requests, whom each row follows."""
HIDDEN = {
    CHAIN: lambda row, other: other % WIDTH > row % WIDTH,
    TREE: lambda row, other: other % WIDTH and other not in (row, *leading_to(row)),
}
"""Whether a row must not depend on another: on a guess that does not lead to it, in whatever
request."""


def verify_input(kind: str, topk: int = 1) -> Any:
    """SGLang's own."""
    if kind == "NGRAM":
        from sglang.srt.speculative.ngram_info import NgramVerifyInput

        return NgramVerifyInput(draft_token_num=WIDTH, custom_mask=torch.ones(1, dtype=torch.bool))
    from sglang.srt.model_executor.forward_batch_info import CaptureHiddenMode

    if kind == "DFLASH":
        from sglang.srt.speculative.dflash_info import DFlashVerifyInput

        return DFlashVerifyInput(torch.zeros(8), torch.zeros(8), WIDTH)
    from sglang.srt.speculative.eagle_info import EagleVerifyInput

    tensors = ("draft_token", "custom_mask", "positions", "retrieve_index", "retrieve_next_token")
    more = ("retrieve_next_sibling", "retrieve_cum_len", "seq_lens_sum", "seq_lens_cpu")
    return EagleVerifyInput(
        **dict.fromkeys((*tensors, *more)),
        spec_steps=3,
        topk=topk,
        draft_token_num=WIDTH,
        capture_hidden_mode=CaptureHiddenMode.FULL,
    )


def leading_to(row: int) -> list[int]:
    """The guesses that a guess follows, in the trees of `PARENTS`."""
    first, place = row - row % WIDTH, row % WIDTH
    return [first + each for each in ancestors(PARENTS[first // WIDTH], place)] if place else []


def trees_of(requests: int) -> dict[str, torch.Tensor]:
    """SGLang's links between the rows of so many requests, the same three trees over and over."""
    found = [links(PARENTS[i % len(PARENTS)]) for i in range(requests)]
    child, sibling = (torch.tensor(each) for each in zip(*found, strict=True))
    return {"retrieve_next_token": child, "retrieve_next_sibling": sibling}


def rows_of(of: Drafts, requests: int) -> torch.Tensor:
    """What `route` is told of them. [rows] int64"""
    rows = requests * WIDTH
    if not of.tree:
        return drafts.depths(rows, of, CPU)
    into = torch.zeros(rows, dtype=torch.int64)
    child, sibling = trees_of(requests).values()
    trees.write(child, sibling, into)
    return into


def batch(requests: int, spec_info: Any, name: str = "TARGET_VERIFY") -> Any:
    """A `ForwardBatch` of so many requests, as it comes to `ModelRunner.forward`."""
    ids = torch.zeros(requests * WIDTH, dtype=torch.int64)
    rids = [f"r{i}" for i in range(requests)]
    return SimpleNamespace(
        forward_mode=mode(name), batch_size=requests, input_ids=ids, rids=rids, spec_info=spec_info
    )


def verified(logits: torch.Tensor, of: Drafts, requests: int, **more: Any) -> Any:
    """What SGLang's `select_experts` chooses in a verify pass."""
    info = SimpleNamespace(num_tokens_per_req=of.per_request, tree_topk=-1 if of.tree else 1)
    if of.tree:
        vars(info).update(trees_of(requests))
    given = batch(requests, info)
    runner = SimpleNamespace(is_draft_worker=False)
    if plugin.patched:
        from sglang.srt.layers.moe.batch_routing import routed_pass

        def forward(*_: Any) -> Any:
            with routed_pass(given, False):
                return select(logits, **more)

    else:

        def forward(*_: Any) -> Any:
            return select(logits, **more)

    return forward_mode.around_forward(forward, runner, given)


@pytest.fixture
def on_device(plugged: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[runtime.Runtime]:
    """A runtime as on a GPU, whose knobs and drafts are tensors that graphs read."""
    adopted = runtime.Runtime(Settings(k0="1", min_batch=2))
    assert adopted.adopt([Router(5, 4, True, None)], 16, CPU) == []
    adopted.start_counting(16, 1, CPU)
    adopted.knobs = Knobs({5: 4}, 16, CPU)
    adopted.rows.read_on_device()
    assert adopted.steering.change(adopted.steering.settings) is None
    # it reads knobs, as a launch does
    monkeypatch.setattr(runtime, "way", lambda *_: Way("eager", eager.route, ""))
    before, runtime.current = runtime.current, adopted
    yield adopted
    runtime.current = before


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (("EAGLE", 1), CHAIN),
        (("EAGLE", 8), TREE),
        (("NGRAM",), TREE),
        (("DFLASH",), CHAIN),
    ],
)
def test_drafts_are_read_off_sglangs_own_input(
    plugged: None, given: tuple[Any, ...], found: Drafts
) -> None:
    assert drafts.of(batch(2, verify_input(*given))) == found
    assert drafts.of(batch(2, verify_input(*given), "EXTEND")) == drafts.NONE
    assert drafts.of(batch(2, None)) == drafts.NONE


def test_a_graph_is_captured_for_as_many_rows_of_each_request(now: runtime.Runtime) -> None:
    from sglang.srt.model_executor.runner.decode_cuda_graph_runner import DecodeCudaGraphRunner

    assert "captured_req_width" in DecodeCudaGraphRunner.__init__.__code__.co_names
    runner = SimpleNamespace(
        model_runner=SimpleNamespace(is_draft_worker=False),
        capture_forward_mode=mode("TARGET_VERIFY"),
        captured_req_width=WIDTH,
    )
    if not plugin.patched:
        step = forward_mode.around_capture(lambda *_: now.step, runner, 8)
        assert (step.batch, step.requests, step.counted, step.capturing) == (32, 8, False, True)
    assert drafts.of_graph(runner) == CHAIN
    runner.capture_forward_mode = mode("DECODE")
    assert drafts.of_graph(runner) == drafts.NONE


@pytest.mark.parametrize("of", [CHAIN, TREE], ids=["chain", "tree"])
def test_a_verify_pass_is_routed_and_counted(now: runtime.Runtime, of: Drafts) -> None:
    logits = torch.randn(3 * WIDTH, 16)
    chosen = verified(logits, of, 3)
    expected = host.route(logits, now.policy, RULE, drafts=rows_of(of, 3))
    assert torch.equal(chosen.topk_ids, expected.ids)
    assert torch.equal(chosen.topk_weights, expected.weights)
    assert now.tally is not None
    assert now.tally.unique[0].nonzero().flatten().tolist() == [int(expected.pool.sum())]
    assert int(now.tally.sums[0, 0]) == 3 * WIDTH
    assert not any(now.bypassed.values())
    assert now.clock is not None
    assert [step[0] for step in now.clock.read()] == [3 * WIDTH]
    assert now.clock.requests == 3


ACCEPTED = [[0, 1], [0, -1], [0, 3]]
"""Places of each request's rows that are kept, its token's first."""


def accepted() -> torch.Tensor:
    """As SGLang has them: rows of the whole pass, -1 for nothing. [requests, 2] int32"""
    rows = torch.tensor(ACCEPTED, dtype=torch.int32)
    return torch.where(rows < 0, -1, rows + torch.arange(3, dtype=torch.int32)[:, None] * WIDTH)


def end(kept: torch.Tensor) -> None:
    """What follows a verify pass."""
    rejected.after_eagle_sample((None, None, kept), None, None)


@pytest.mark.parametrize("of", [CHAIN, TREE], ids=["chain", "tree"])
@pytest.mark.parametrize(
    "settings",
    [
        *(Settings(k0="1"), Settings(k0="3", share="0.2"), Settings(k0="2", p=0.5)),
        *(
            Settings(k0="3", draft_k0=1),
            Settings(k0="4", share="0.2", draft_k0=2),
            Settings(k0="4", draft_k0=2),
        ),
    ],
)
def test_experts_that_only_rejected_drafts_woke_are_counted_once(
    now: runtime.Runtime, of: Drafts, settings: Settings
) -> None:
    now.steering.verifies = True
    assert now.steering.change(settings) is None
    torch.manual_seed(3)
    logits = torch.randn(3 * WIDTH, 16)
    verified(logits, of, 3)
    end(accepted())
    end(accepted())  # of no step
    # with no neighbours a row has its floor
    alone, drafted = (
        settings.model_copy(update={"min_batch": 1, "draft_k0": None, "k0": str(k0)}).policy_for(4)
        for k0 in (settings.k0, settings.draft_k0 or settings.k0)
    )
    floors = [
        set(
            host.route(logits[row : row + 1], drafted if row % WIDTH else alone, RULE)
            .ids[0]
            .tolist()
        )
        for row in range(len(logits))
    ]
    kept = {int(row) for row in accepted().flatten() if row >= 0}
    served = set().union(*(floors[row] for row in kept))
    assert now.tally is not None
    assert now.tally.verified.tolist() == [[len(kept), len(set().union(*floors) - served)]]
    assert set().union(*floors) - served


def test_of_a_step_that_is_not_counted_nor_are_its_rejected_drafts(now: runtime.Runtime) -> None:
    logits = torch.randn(3 * WIDTH, 16)
    verified(logits, CHAIN, 3)
    with now.decoding(Step(3, counted=True)):  # a pass without drafts comes in between
        select(logits[:3])
    end(accepted())
    verified(logits, CHAIN, 3)
    end(torch.zeros(0, dtype=torch.int32))  # an idle batch
    assert now.tally is not None
    assert not now.tally.verified.any()
    assert now.steering.change(Settings(policy="vanilla")) is None
    verified(logits, CHAIN, 3)
    end(accepted())
    assert now.tally.verified.tolist() == [[5, 0]]  # SGLang's own top k has no floors


def test_sglang_says_which_rows_are_kept() -> None:
    """The seam's symbol gives what the count reads, in its third place."""
    from sglang.srt.speculative import eagle_utils

    source = inspect.getsource(inspect.unwrap(eagle_utils.eagle_sample))
    assert set(re.findall(r"return predict, .*, (\w+)", source)) == {"accept_index"}


@pytest.mark.parametrize("of", [CHAIN, TREE], ids=["chain", "tree"])
@pytest.mark.parametrize(
    "settings",
    [
        Settings(k0="1"),
        Settings(k0="2", share="0.2", mix="0.5"),
        Settings(k0="3", p=0.5),
        Settings(k0="3", draft_k0=1),
    ],
)
def test_no_row_depends_on_a_guess_that_does_not_lead_to_it(
    now: runtime.Runtime, of: Drafts, settings: Settings
) -> None:
    """Over two layers, the second of which sees what the first has made of all rows."""
    now.steering.verifies = True
    assert now.steering.change(settings) is None
    rows = 3 * WIDTH
    torch.manual_seed(1)
    weights = torch.randn(16, 16)

    def both(logits: torch.Tensor) -> tuple[Any, Any]:
        first = verified(logits, of, 3)
        mixed = torch.zeros(rows, 16).scatter_(1, first.topk_ids.long(), first.topk_weights)
        return first, verified(mixed @ weights, of, 3)

    logits = torch.randn(rows, 16)
    whole = both(logits)
    for row in range(rows):
        hidden = torch.tensor([bool(HIDDEN[of](row, other)) for other in range(rows)])
        again = both(torch.where(hidden[:, None], torch.randn(rows, 16), logits))
        for before, after in zip(whole, again, strict=True):
            assert torch.equal(before.topk_ids[row], after.topk_ids[row])
            assert torch.equal(before.topk_weights[row], after.topk_weights[row])


def test_a_lone_request_takes_sglangs_own_path_however_many_rows_it_has(
    now: runtime.Runtime,
) -> None:
    logits = torch.randn(WIDTH, 16)
    chosen = verified(logits, CHAIN, 1)
    assert torch.equal(chosen.topk_ids, logits.softmax(-1).topk(4).indices)
    assert now.bypassed["schedule"] == 1


def test_a_schedule_is_read_at_requests(now: runtime.Runtime) -> None:
    assert now.steering.change(Settings(k0="1:4,4:1")) is None
    logits = torch.randn(4 * WIDTH, 16)
    assert torch.equal(
        verified(logits[: 3 * WIDTH], CHAIN, 3).topk_ids,
        logits[: 3 * WIDTH].softmax(-1).topk(4).indices,
    )
    assert now.bypassed["schedule"] == 1
    with now.decoding(Step(3 * WIDTH, counted=True)):  # as many rows, each of its own request
        assert not now.is_vanilla(now.routers[5])
    assert not torch.equal(verified(logits, CHAIN, 4).topk_ids, logits.softmax(-1).topk(4).indices)


def test_a_graph_follows_the_drafts_of_each_step(on_device: runtime.Runtime) -> None:
    """The same tensors, captured once: a chain, a tree, fewer requests, another width."""
    now, logits = on_device, torch.randn(8 * WIDTH, 16)
    router, knobs = now.routers[5], now.knobs
    assert knobs is not None
    with now.decoding(Step(8 * WIDTH, False, True, *CHAIN)):
        captured: Any = now.num_real(8 * WIDTH), now.drafts(8 * WIDTH)
        assert not now.is_vanilla(router)
    for requests, of in ((8, CHAIN), (5, TREE), (3, Drafts(2)), (1, CHAIN), (5, CHAIN)):
        rows = requests * of.per_request
        with now.decoding(Step(rows, True, False, *of)):
            told: Any = now.num_real(rows), now.drafts(8 * WIDTH)
            assert all(
                one is None or one.data_ptr() == other.data_ptr()
                for one, other in zip(told, captured, strict=True)
            )
            ours = eager.route(
                logits, knobs, RULE, num_real=captured[0], drafts=captured[1], layer=5
            )
        depths = drafts.depths(rows, of, CPU)
        expected = host.route(logits[:rows], now.policy, RULE, drafts=depths)
        assert torch.equal(ours.ids[:rows], expected.ids)
        assert torch.equal(ours.pool, expected.pool)
        assert not ours.weights[rows:].any()


def test_a_graph_reads_the_trees_of_each_pass(on_device: runtime.Runtime) -> None:
    """At one address: others each time, though the steps are alike; none that is left over where
    SGLang says none."""
    now, rows = on_device, 3 * WIDTH
    step, seen = Step(rows, True, False, *TREE), []
    for parents in (PARENTS, PARENTS[::-1], None):
        info = SimpleNamespace()
        if parents is not None:
            child, sibling = (torch.tensor(each) for each in zip(*map(links, parents), strict=True))
            info = SimpleNamespace(retrieve_next_token=child, retrieve_next_sibling=sibling)
        now.rows.forward_batch = SimpleNamespace(spec_info=info)
        with now.decoding(step):
            told = now.drafts(8 * WIDTH)
        assert told is not None
        seen.append(told.data_ptr())
        for row, word in enumerate(told[:rows].tolist()):
            place, known = row % WIDTH, parents or [[-1, 0, 0, 0]] * 3
            leading = ancestors(known[row // WIDTH], place) if place else set()
            assert word == (~sum(1 << (place - each - 1) for each in leading) if place else 0)
        assert told[rows:].tolist() == drafts.depths(5 * WIDTH, TREE, CPU).tolist()
    assert len(set(seen)) == 1


def test_sglang_says_what_follows_what() -> None:
    """The names that are read, in its own verify inputs."""
    from sglang.srt.speculative.eagle_info import EagleVerifyInput
    from sglang.srt.speculative.ngram_info import NgramVerifyInput

    for kind in (EagleVerifyInput, NgramVerifyInput):
        assert {"retrieve_next_token", "retrieve_next_sibling"} <= set(
            inspect.signature(kind).parameters
        )


def test_a_step_is_padded_to_a_graph_of_its_own_width(on_device: runtime.Runtime) -> None:
    graphs = on_device.graphs
    for size, of in ((1, CHAIN), (4, CHAIN), (8, Drafts(2))):
        with on_device.decoding(Step(size * of.per_request, False, True, *of)):
            pass
    assert [graphs.rows_of(rows, WIDTH) for rows in (4, 8, 16, 20)] == [4, 16, 16, 20]
    assert graphs.rows_of(6, 2) == 16
    assert graphs.rows_of(3) == 3


def test_a_floor_for_drafts_is_refused_where_there_are_none(now: runtime.Runtime) -> None:
    before = now.steering.settings
    assert (
        now.steering.change(Settings(draft_k0=2))
        == "draft_k0=2 has no effect: no steps verify drafts without --speculative-algorithm;"
        " leave draft_k0 out"
    )
    assert now.steering.settings is before
    now.steering.verifies = True
    assert now.steering.change(Settings(draft_k0=5)) == "draft_k0=5 is above the model's top-k 4"
    assert now.steering.change(Settings(draft_k0=4)) is None


def test_a_graph_follows_the_floor_of_drafts(on_device: runtime.Runtime) -> None:
    now, logits, rows = on_device, torch.randn(4 * WIDTH, 16), 4 * WIDTH
    now.steering.verifies = True
    knobs, found = now.knobs, []
    assert knobs is not None
    for settings in (Settings(k0="3"), Settings(k0="3", draft_k0=1), Settings(k0="3")):
        assert now.steering.change(settings) is None
        with now.decoding(Step(rows, True, False, *CHAIN)):
            ours = eager.route(
                logits, knobs, RULE, num_real=torch.tensor(rows), drafts=now.drafts(rows), layer=5
            )
        expected = host.route(
            logits, settings.policy_for(4), RULE, drafts=drafts.depths(rows, CHAIN, CPU)
        )
        assert torch.equal(ours.ids, expected.ids)
        found.append(int(ours.pool.sum()))
    assert found[1] < found[0] == found[2]


def test_a_budget_is_refused_where_steps_verify_drafts(now: runtime.Runtime) -> None:
    """Its k0 is 1 by default, for what votes add: in a verify pass they add nothing."""
    now.steering.verifies = True
    before = now.steering.settings
    assert "use pool=union or fill" in str(
        now.steering.change(Settings(pool="budget", rank_budget=4))
    )
    assert now.steering.settings is before
    assert now.steering.change(Settings(pool="fill")) is None


@pytest.mark.skipif(not REPLAY, reason="the CPU platform has stand-ins for 0.5.23")
def test_so_it_is_before_anything_is_spawned(plugged: None) -> None:
    budget = Settings(pool="budget", rank_budget=4)
    drafted = ("--speculative-algorithm", "NGRAM")
    for flags, found in (((), []), (drafted, [DRAFTED])):
        assert [
            each for each in launch.judge(budget, server_args(*flags)).problems if "pool" in each
        ] == found
    for flags, times in (((), 1), (drafted, 0)):
        said = "\n".join(launch.judge(Settings(draft_k0=1), server_args(*flags)).problems)
        assert said.count("draft_k0=1 has no effect") == times


def test_counting_beside_shadow_sees_the_same_rows(now: runtime.Runtime) -> None:
    assert now.steering.change(Settings(policy="shadow", k0="1")) is None
    logits = torch.randn(3 * WIDTH, 16)
    assert torch.equal(verified(logits, CHAIN, 3).topk_ids, logits.softmax(-1).topk(4).indices)
    expected = host.route(
        logits, Settings(k0="1").policy_for(4), RULE, drafts=drafts.depths(12, CHAIN, CPU)
    )
    assert now.shadow_tally is not None
    assert now.shadow_tally.unique[0].nonzero().flatten().tolist() == [int(expected.pool.sum())]
