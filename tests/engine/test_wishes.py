"""Wishes through our seams: from SGLang's own requests to what each row of a step is guaranteed."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from oea_server.engine import forward_mode, plugin, runtime, wish_door, wish_gather, wishers
from oea_server.engine.drafts import Drafts
from oea_server.engine.gathered import Ranks
from oea_server.engine.step import Step
from oea_server.routing import Policy, eager
from oea_server.routing import Router as Rule
from oea_server.routing.policy import EXACT
from oea_server.settings import Settings
from tests.engine import test_gathered as gathered
from tests.engine.test_guard import mode
from tests.engine.test_seams import route, select, with_device_knobs
from tests.transcript import REPLAY

CPU = torch.device("cpu")
WIDTH = 4
EXACT_WISH, FOUR = {"exact": True}, {"k0": 3}


def request(rid: str, wish: Any = None, **more: Any) -> Any:
    """SGLang's own, as a scheduler makes it of what came to it."""
    from sglang.srt.managers.schedule_batch import Req
    from sglang.srt.sampling.sampling_params import SamplingParams

    params = (
        None if wish is None and not more else {**({} if wish is None else {"oea": wish}), **more}
    )
    sampling = SamplingParams(max_new_tokens=5, custom_params=params)
    return Req(rid, "", [1, 2, 3], sampling, vocab_size=100)


@pytest.fixture(autouse=True)
def nobody_asks() -> Iterator[None]:
    torch.manual_seed(4)
    yield
    gc.collect()
    assert not wishers.asking, "a request that SGLang has let go is still known"


def step_of(
    now: runtime.Runtime,
    requests: list[Any],
    layers: Callable[[], Any],
    of: Drafts = Drafts(),  # noqa: B008
) -> Any:
    """A decode step, or one that verifies drafts, of SGLang's requests, through our seam."""
    name = "DECODE" if of.per_request == 1 else "TARGET_VERIFY"
    given = SimpleNamespace(
        forward_mode=mode(name),
        batch_size=len(requests),
        input_ids=torch.zeros(len(requests) * of.per_request, dtype=torch.int64),
        rids=[each.rid for each in requests],
        spec_info=SimpleNamespace(
            num_tokens_per_req=of.per_request, tree_topk=-1 if of.tree else 1
        ),
    )
    return through(given, lambda _: layers())


def through(given: Any, layers: Callable[[Any], Any]) -> Any:
    """A batch through our seams, as hooks or in a patched SGLang."""

    def forward(_: Any, forward_batch: Any) -> Any:
        if not plugin.patched:
            return layers(forward_batch)
        from sglang.srt.layers.moe.batch_routing import routed_pass

        with routed_pass(forward_batch, False):
            return layers(forward_batch)

    return forward_mode.around_forward(forward, SimpleNamespace(is_draft_worker=False), given)


def test_a_request_is_known_as_long_as_sglang_has_it(plugged: None) -> None:
    kept, other = request("kept", EXACT_WISH), request("other")
    assert list(wishers.asking) == ["kept"]
    assert wishers.of(["other", "kept"], as_it_is=False) == (0, -EXACT)
    assert wishers.of(["other"], as_it_is=False) == ()
    del kept
    gc.collect()
    assert wishers.of(["other", "kept"], as_it_is=False) == ()
    assert other.rid == "other"


def test_an_earlier_request_of_the_same_id_wishes_nothing_for_the_next(plugged: None) -> None:
    """SGLang 0.5.17 has requests in cycles: they are there until they are collected."""
    earlier, later = request("again", EXACT_WISH), request("again")
    assert wishers.of(["again"], as_it_is=False) == ()
    assert earlier.oea_wish == EXACT
    assert later.rid == "again"


def test_what_others_carry_is_no_wish(plugged: None) -> None:
    held = [request("a", thinking_budget=5), request("b", {"exact": False})]
    assert not wishers.asking
    assert len(held) == 2


def test_nonsense_that_came_round_the_door_is_served_without_it(
    plugged: None, caplog: pytest.LogCaptureFixture
) -> None:
    held = request("a", {"k0": "6"})
    assert not wishers.asking
    assert "served without its wish: custom_params.oea.k0: '6' is no whole number" in caplog.text
    assert held.rid == "a"


BODY: dict[str, Any] = {"model": "demo", "custom_params": {"oea": {"k0": 3}, "thinking_budget": 5}}


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("route_of", ["chat", "completions", "generate"])
def test_a_wish_comes_through_sglangs_own_classes(plugged: None, route_of: str, n: int) -> None:
    """From a body to a request in the scheduler, over the wire."""
    import msgspec
    from sglang.srt.entrypoints.openai import protocol
    from sglang.srt.entrypoints.openai.serving_completions import OpenAIServingCompletion
    from sglang.srt.managers.io_struct import GenerateReqInput
    from sglang.srt.managers.schedule_batch import Req
    from sglang.srt.sampling.sampling_params import SamplingParams

    if route_of == "chat":
        body: Any = protocol.ChatCompletionRequest(
            messages=[{"role": "user", "content": "x"}], n=n, **BODY
        )
        sampling = body.to_sampling_params([], {}, None)
    elif route_of == "completions":
        body = protocol.CompletionRequest(prompt="x", n=n, **BODY)
        serving = SimpleNamespace(default_sampling_params={})
        sampling = OpenAIServingCompletion._build_sampling_params(serving, body)
    else:
        sampling = {"n": n, "custom_params": BODY["custom_params"]}
    obj = GenerateReqInput(text="x", sampling_params=sampling)
    config = {"architectures": ["Qwen3MoeForCausalLM"], "num_experts": 16, "num_experts_per_tok": 4}
    hf_config = SimpleNamespace(to_dict=lambda: config)
    wish_door.before_generate_request(
        SimpleNamespace(model_config=SimpleNamespace(hf_config=hf_config)), obj
    )
    sampling["custom_params"] = {"oea": {"k0": 5}}
    with pytest.raises(ValueError, match="k0: 5 is above 4, the model's top k"):
        wish_door.before_generate_request(
            SimpleNamespace(model_config=SimpleNamespace(hf_config=hf_config)), obj
        )
    sampling["custom_params"] = BODY["custom_params"]
    obj.normalize_batch_and_arguments()
    several = (
        obj.sampling_params if isinstance(obj.sampling_params, list) else [obj.sampling_params]
    )
    held = []
    for number, each in enumerate(several):
        params = SamplingParams(**each)
        sent = msgspec.msgpack.decode(msgspec.msgpack.encode(params), type=SamplingParams)
        held.append(Req(f"r{number}", "", [1, 2, 3], sent, vocab_size=100))
    rids = [req.rid for req in held]
    assert wishers.of(rids, as_it_is=False) == (-3,) * len(held)


def test_each_row_gets_what_its_request_wishes(now: runtime.Runtime) -> None:
    """k0 is 1: an exact row is vanilla's, another takes its own three, whoever is beside it."""
    logits = torch.randn(5, 16)
    requests = [
        request("a"),
        request("b", EXACT_WISH),
        request("c", FOUR),
        request("d"),
        request("e"),
    ]
    chosen = step_of(now, requests, lambda: select(logits))
    expected = route(logits, now.policy, row_k0=torch.tensor([0, -EXACT, -3, 0, 0]))
    assert torch.equal(chosen.topk_ids, expected.ids)
    assert torch.equal(chosen.topk_weights, expected.weights)
    weights, ids = logits.softmax(-1).topk(4)
    assert torch.equal(chosen.topk_ids[1], ids[1].int())
    torch.testing.assert_close(
        chosen.topk_weights[1], weights[1] / weights[1].sum(), rtol=0, atol=1e-6
    )
    assert torch.equal(chosen.topk_weights[1], route(logits, Policy.vanilla()).weights[1])
    assert torch.equal(chosen.topk_ids[2, :3], ids[2, :3].int())
    assert now.tally is not None
    assert now.tally.unique[0].nonzero().flatten().tolist() == [int(expected.pool.sum())]


def test_where_nobody_asks_nothing_is_handed_on(
    now: runtime.Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, logits = request("elsewhere", EXACT_WISH), torch.randn(5, 16)
    monkeypatch.setattr(runtime.Runtime, "asked", seen := Seen(runtime.Runtime.asked))
    chosen = step_of(now, [request(str(i)) for i in range(5)], lambda: select(logits))
    assert torch.equal(chosen.topk_ids, route(logits, now.policy).ids)
    assert seen.answers == [None]
    assert held.rid == "elsewhere"


class Seen:
    """Keeps what a method answered."""

    def __init__(self, method: Any) -> None:
        self._method = method
        self.answers: list[Any] = []

    def __get__(self, instance: Any, owner: Any) -> Any:
        def called(*args: Any) -> Any:
            self.answers.append(self._method(instance, *args))
            return self.answers[-1]

        return called


@pytest.mark.parametrize("tree", [False, True])
def test_all_rows_of_a_request_get_its_wish(now: runtime.Runtime, tree: bool) -> None:
    logits = torch.randn(3 * WIDTH, 16)
    requests = [request("a"), request("b", EXACT_WISH), request("c")]
    chosen = step_of(now, requests, lambda: select(logits), Drafts(WIDTH, tree))
    vanilla = route(logits, Policy.vanilla())
    assert torch.equal(chosen.topk_ids[WIDTH : 2 * WIDTH], vanilla.ids[WIDTH : 2 * WIDTH])
    assert torch.equal(chosen.topk_weights[WIDTH : 2 * WIDTH], vanilla.weights[WIDTH : 2 * WIDTH])
    assert not torch.equal(chosen.topk_ids[:WIDTH], vanilla.ids[:WIDTH])


def test_the_higher_of_wish_and_server_holds_in_each_step(now: runtime.Runtime) -> None:
    logits, requests = (
        torch.randn(6, 16),
        [request("a", {"k0": 2}), *(request(str(i)) for i in range(5))],
    )
    best = logits.topk(4).indices.int()
    for k0, held in (("1", 2), ("3", 3), ("1:4,6:2", 2), ("1:4,7:2", 4)):
        assert now.steering.change(Settings(k0=k0)) is None
        chosen = step_of(now, requests, lambda: select(logits))
        assert torch.equal(chosen.topk_ids[0, :held], best[0, :held])


def test_where_an_operator_allows_less_a_wish_is_taken_as_it_is(now: runtime.Runtime) -> None:
    logits, requests = (
        torch.randn(6, 16),
        [request("a", {"k0": 1}), *(request(str(i)) for i in range(5))],
    )
    logits[0, 12:] += 20  # where nobody else goes
    logits[1:, 12:] -= 20
    assert now.steering.change(Settings(k0="3", wish_floor=1)) is None
    chosen = step_of(now, requests, lambda: select(logits))
    expected = route(logits, now.policy, row_k0=torch.tensor([1, 0, 0, 0, 0, 0]))
    assert torch.equal(chosen.topk_ids, expected.ids)
    assert int((chosen.topk_ids[0] >= 12).sum()) == 1


def test_under_vanilla_and_in_a_step_too_small_to_share_all_is_sglangs(
    now: runtime.Runtime,
) -> None:
    logits = torch.randn(3, 16)
    lone = step_of(now, [request("a", FOUR)], lambda: select(logits[:1]))
    assert torch.equal(lone.topk_ids, logits[:1].softmax(-1).topk(4).indices)
    assert now.steering.change(Settings(policy="vanilla")) is None
    chosen = step_of(now, [request("a", FOUR), request("b"), request("c")], lambda: select(logits))
    assert torch.equal(chosen.topk_ids, logits.softmax(-1).topk(4).indices)


def test_at_random_an_exact_row_is_not_drawn(now: runtime.Runtime) -> None:
    logits = torch.randn(3, 16)
    assert now.steering.change(Settings(policy="random")) is None
    chosen = step_of(
        now, [request("a"), request("b", EXACT_WISH), request("c")], lambda: select(logits)
    )
    assert torch.equal(chosen.topk_ids[1], logits.softmax(-1).topk(4).indices[1].int())


def test_shadow_counts_what_wishes_would_cost(now: runtime.Runtime) -> None:
    logits = torch.randn(4, 16)
    assert now.steering.change(Settings(policy="shadow", k0="1")) is None
    assert now.shadow_tally is not None
    counted = []
    for wish in (None, EXACT_WISH):
        before = now.shadow_tally.unique.clone()
        step_of(
            now,
            [request("a", wish), request("b"), request("c"), request("d")],
            lambda: select(logits),
        )
        counted.append(int((now.shadow_tally.unique - before)[0].nonzero().flatten()))
    assert now.shadow is not None
    row_k0 = torch.tensor([EXACT, 0, 0, 0])
    assert counted == [
        int(route(logits, now.shadow, row_k0=each).pool.sum()) for each in (None, row_k0)
    ]


def test_a_graph_reads_wishes_where_they_were_when_it_was_captured(now: runtime.Runtime) -> None:
    """The same calls that capture records, replayed by hand: others ask, none, more."""
    knobs: Any = with_device_knobs(now).knobs
    logits = torch.randn(8, 16)
    with now.decoding(Step(8, counted=False, capturing=True)):
        captured: Any = now.num_real(8), now.asked(8)
        assert not now.is_vanilla(now.routers[5])
    assert not captured[1].any()

    def replay() -> Any:
        return eager.route(
            logits, knobs, Rule(4), num_real=captured[0], row_k0=captured[1], layer=5
        )

    for wishes in (
        (EXACT_WISH, None, FOUR, None, None),
        (),
        (None, None, EXACT_WISH),
        (None,) * 8,
        (FOUR,) * 8,
    ):
        size = len(wishes) or 4
        requests = [request(str(i), wish) for i, wish in enumerate(wishes or (None,) * 4)]
        found = step_of(now, requests, replay)
        asked = [
            0 if wish is None else -EXACT if wish == EXACT_WISH else -3
            for wish in wishes or (None,) * 4
        ]
        expected = route(logits[:size], now.policy, row_k0=torch.tensor(asked))
        assert captured[1].tolist() == [*asked, *[0] * (8 - size)]
        assert torch.equal(found.ids[:size], expected.ids)
        assert torch.equal(found.pool, expected.pool)


def test_where_nobody_asks_nothing_is_written_to_the_device(now: runtime.Runtime) -> None:
    """Once for two steps that ask the same, and once to clear it."""
    buffer = with_device_knobs(now).rows.memory.asked
    assert buffer is not None
    written = [buffer._version]
    for wish in (None, None, EXACT_WISH, EXACT_WISH, None, None):
        step_of(now, [request("a", wish), request("b")], lambda: None)
        written.append(buffer._version)
    assert [one != other for one, other in pairwise(written)] == [
        False,
        False,
        True,
        False,
        True,
        False,
    ]
    assert not buffer.any()


COUNTS = (3, 0, 2)
TOLD = ((0, -EXACT, 0), (), (-3, 0))
"""What the requests of three ranks ask."""


def ranks_own(own: int) -> list[Any]:
    """SGLang's requests of one of the ranks."""
    wish = {0: None, -EXACT: EXACT_WISH, -3: FOUR}
    return [request(f"r{i}", wish[asked]) for i, asked in enumerate(TOLD[own])]


@pytest.mark.parametrize("padding", [gathered.MAX_LEN, gathered.SUM_LEN])
@pytest.mark.parametrize("own", [0, 1, 2])
@pytest.mark.parametrize("each", [1, WIDTH])
def test_all_ranks_keep_the_wishes_of_all_of_them(
    now: runtime.Runtime, monkeypatch: pytest.MonkeyPatch, own: int, padding: str, each: int
) -> None:
    """Their rows come together in slots, whose padding asks nothing; an idle rank's as well; with
    drafts, too."""
    monkeypatch.setattr(wish_gather, "asked", TOLD)
    now.rows.ranks = Ranks(3, own)
    counts = tuple(count * each for count in COUNTS)
    rows, held = torch.randn(sum(counts), 16), ranks_own(own)
    more: dict[str, Any] = {"rids": [req.rid for req in held]}
    if each > 1:
        more |= {"original_global_num_tokens_cpu": list(COUNTS), "batch_size": COUNTS[own]}
        more["spec_info"] = SimpleNamespace(tree_topk=1, num_tokens_per_req=each)
    name = "IDLE" if not COUNTS[own] else "DECODE" if each == 1 else "TARGET_VERIFY"
    given = gathered.batch(counts, own, name, **more)

    def layers(forward_batch: Any) -> tuple[Any, list[int]]:
        slots = gathered.pad(forward_batch, padding)
        return select(gathered.laid_out(rows, counts, slots)), slots

    chosen, slots = through(given, layers)
    row_k0 = torch.tensor([asked for rank in TOLD for asked in rank]).repeat_interleave(each)
    depths = None if each == 1 else torch.arange(sum(counts)) % each
    expected, real = (
        route(rows, now.policy, row_k0=row_k0, drafts=depths),
        gathered.at(counts, slots),
    )
    assert torch.equal(chosen.topk_ids[real], expected.ids)
    assert torch.equal(chosen.topk_weights[real], expected.weights)
    assert not chosen.topk_weights[~real].any()


def test_a_graph_of_all_ranks_reads_wishes_in_their_slots(
    now: runtime.Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    now.rows.ranks = Ranks(3, 2)
    knobs: Any = with_device_knobs(now).knobs
    with forward_mode.capturing(now, mode("DECODE"), 4):
        captured: Any = now.num_real(12), now.asked(12)
    rows, slots = torch.randn(5, 16), [4, 4, 4]
    logits = gathered.laid_out(rows, COUNTS, slots)
    for told in (TOLD, ()):
        monkeypatch.setattr(wish_gather, "asked", told)
        held = ranks_own(2) if told else [request("r0"), request("r1")]
        given = gathered.batch(COUNTS, 2, rids=[req.rid for req in held])
        found = through(
            given,
            lambda _: eager.route(
                logits, knobs, Rule(4), num_real=captured[0], row_k0=captured[1], layer=5
            ),
        )
        row_k0 = torch.tensor([0, -EXACT, 0, -3, 0]) if told else None
        real, expected = gathered.at(COUNTS, slots), route(rows, now.policy, row_k0=row_k0)
        assert torch.equal(found.ids[real], expected.ids)
        assert torch.equal(found.pool, expected.pool)
        assert captured[1].tolist() == (
            [0, -EXACT, 0, 0, *[0] * 4, -3, 0, 0, 0] if told else [0] * 12
        )


@pytest.mark.parametrize("told", [(), ((0, 0, 0), (), (-3, 0)), ((0, -EXACT), (), (-3, 0))])
def test_wishes_that_ranks_have_told_each_other_otherwise_end_it(
    now: runtime.Runtime, ended: Callable[[], str], monkeypatch: pytest.MonkeyPatch, told: Any
) -> None:
    monkeypatch.setattr(wish_gather, "asked", told)
    now.rows.ranks = Ranks(3, 0)
    held = ranks_own(0)
    with pytest.raises(SystemExit):
        through(gathered.batch(COUNTS, 0, rids=[req.rid for req in held]), lambda _: None)
    assert (
        "a decode step of 3, 0, 2 requests on as many ranks, which have told each other of other"
        " wishes" in ended()
    )


@pytest.mark.skipif(
    not REPLAY, reason="0.5.17 pins memory for DP attention, and no CPU serves it there"
)
@pytest.mark.parametrize("wish", [None, EXACT_WISH])
def test_ranks_meet_once_more_only_where_somebody_asks(
    now: runtime.Runtime, monkeypatch: pytest.MonkeyPatch, wish: Any
) -> None:
    """SGLang's own row of numbers, which all ranks get from all: here from one other, whose request
    wishes."""
    from sglang.srt.managers.scheduler_components import dp_attn

    requests, met = [request("a"), request("b", None if wish is None else FOUR)], []

    def gather(*rows: Any, **_: Any) -> None:
        every = rows[0].view(2, -1)
        every[:] = rows[1]
        every[:, -1] = torch.tensor([rows[1][-1], int(wish is not None)])

    def all_gather(heard: list[torch.Tensor], told: torch.Tensor, group: Any) -> None:
        met.append(told.tolist())
        heard[0].copy_(told)
        heard[1].copy_(torch.tensor([0, -EXACT, 0]))

    group = SimpleNamespace(
        cpu_group=None, active_ranks_cpu=torch.ones(2), active_ranks=torch.ones(2)
    )
    parallel = SimpleNamespace(tp_group=group)
    monkeypatch.setattr(dp_attn, "exchange_sync_rows", gather)
    monkeypatch.setattr(dp_attn, "get_parallel", lambda: parallel)
    monkeypatch.setattr("sglang.srt.runtime_context.get_parallel", lambda: parallel)
    monkeypatch.setattr(torch.distributed, "all_gather", all_gather)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda _: 2)
    told = dict.fromkeys(("num_tokens", "num_tokens_for_logprob", "local_forward_mode"), 0)
    votes = {
        name: True
        for name in dp_attn.MLPSyncBatchInfo.__dataclass_fields__
        if name.startswith("can_run")
    }
    sizes = {"num_dp_ranks": 2, "tp_size": 1, "cp_size": 1}
    info = dp_attn.MLPSyncBatchInfo(
        **told, **votes, **sizes, is_extend_in_batch=False, local_can_run_tbo=False
    )
    info.all_gather("cpu", None)
    assert info.global_num_tokens == [0, 0]
    now.rows.ranks = Ranks(2, 0)
    decode = SimpleNamespace(
        reqs=requests,
        forward_mode=mode("DECODE"),
        is_extend_in_batch=False,
        global_num_tokens=[2, 3],
    )
    assert wish_gather.after_prepare(decode) is decode
    if wish is None:
        assert (met, wish_gather.asked) == ([], ())
    else:
        assert met == [[0, -3, 0]]
        assert wish_gather.asked == ((0, -3), (0, -EXACT, 0))
    # ranks that have told each other nothing since do not meet
    assert wish_gather.after_prepare(decode) is decode
    assert (len(met), wish_gather.asked) == (int(wish is not None), ())


def test_ids_that_are_not_one_for_each_request_end_it(
    now: runtime.Runtime, ended: Callable[[], str]
) -> None:
    asks = request("a", EXACT_WISH)
    with pytest.raises(SystemExit):
        forward_mode.running(now, mode("DECODE"), 3, [asks.rid, "b"])
    assert "a decode step of 3 requests has 2 ids" in ended()
