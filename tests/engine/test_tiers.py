"""Tiers through our seams: from SGLang's own bodies, with a key or a header, to what each tier's
rows keep."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from oea_server.engine import (
    http,
    runtime,
    tier_counts,
    tier_times,
    wish_door,
    wish_gather,
    wishers,
)
from oea_server.engine.drafts import Drafts
from oea_server.engine.gathered import Ranks
from oea_server.engine.tier_counts import TierCounts
from oea_server.engine.wish import Admitted, Carried
from oea_server.observe import tier_metrics
from oea_server.observe.applying import RefusalError
from oea_server.routing.policy import EXACT
from oea_server.routing.tally import MASS_UNIT
from oea_server.settings import Settings
from oea_server.tiers import keys
from oea_server.tiers.binding import Binding
from oea_server.tiers.table import MOST_NAMES
from tests.engine import test_gathered as gathered
from tests.engine.test_seams import select
from tests.engine.test_wishes import WIDTH, request, step_of, through

TIERS = "gold: exact; silver: k0=3; bronze: auto"
GOLD = "sk-gold"
CONFIG = {"architectures": ["Qwen3MoeForCausalLM"], "num_experts": 16, "num_experts_per_tok": 4}
MANAGER = SimpleNamespace(
    model_config=SimpleNamespace(hf_config=SimpleNamespace(to_dict=lambda: CONFIG)),
    server_status=SimpleNamespace(name="Up"),
)


@pytest.fixture(autouse=True)
def nobody_has_a_tier(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    torch.manual_seed(4)
    monkeypatch.setattr(tier_counts, "counts", TierCounts())
    yield
    gc.collect()
    assert not wishers.tiered, "a request that SGLang has let go is still known"


@pytest.fixture
def door(plugged: None, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Have this process serve HTTP by some settings and a binding."""

    def serve(bound: Binding = Binding(), **knobs: Any) -> None:  # noqa: B008
        monkeypatch.setattr(
            runtime,
            "current",
            runtime.Runtime(
                Settings(**{"k0": "2", "tiers": TIERS, "default_tier": "bronze", **knobs})
            ),
        )
        monkeypatch.setattr(wish_door, "known", None)
        monkeypatch.setattr(wish_door, "bound", bound)

    serve()
    return serve


def http_request(*headers: tuple[str, str], path: str = "/generate") -> Any:
    from starlette.requests import Request

    encoded = [(name.lower().encode(), value.encode()) for name, value in headers]
    return Request(
        {"type": "http", "method": "POST", "path": path, "root_path": "", "headers": encoded}
    )


def sampling_of(route: str, wish: Any, n: int = 1) -> Any:
    """What SGLang makes of a body of one of its routes."""
    from sglang.srt.entrypoints.openai import protocol
    from sglang.srt.entrypoints.openai.serving_completions import OpenAIServingCompletion

    params = {} if wish is None else {"custom_params": {"oea": wish, "thinking_budget": 5}}
    if route == "chat":
        chat = protocol.ChatCompletionRequest(
            model="demo", messages=[{"role": "user", "content": "x"}], n=n, stream=True, **params
        )
        return chat.to_sampling_params([], {}, None)
    if route == "completions":
        body = protocol.CompletionRequest(model="demo", prompt="x", n=n, **params)
        return OpenAIServingCompletion._build_sampling_params(
            SimpleNamespace(default_sampling_params={}), body
        )
    return {"n": n, **params}


def arrive(sampling: Any, *headers: tuple[str, str], text: Any = "x") -> list[Any]:
    """Through the door and over the wire, as SGLang's requests in a scheduler."""
    import msgspec
    from sglang.srt.managers.io_struct import GenerateReqInput
    from sglang.srt.managers.schedule_batch import Req
    from sglang.srt.sampling.sampling_params import SamplingParams

    obj = GenerateReqInput(text=text, sampling_params=sampling)
    before = json.dumps(sampling)
    for _ in range(2):  # SGLang may come by with the same once more
        wish_door.before_generate_request(MANAGER, obj, http_request(*headers))
    assert json.dumps(sampling) == before, "what SGLang builds later turns from was changed"
    obj.normalize_batch_and_arguments()
    several = (
        obj.sampling_params if isinstance(obj.sampling_params, list) else [obj.sampling_params]
    )
    found = []
    for number, each in enumerate(several):
        sent = msgspec.msgpack.decode(
            msgspec.msgpack.encode(SamplingParams(**each)), type=SamplingParams
        )
        found.append(Req(f"r{number}", "", [1, 2, 3], sent, vocab_size=100))
    return found


BEARER = ("Authorization", f"Bearer {GOLD}")
BOUND = Binding("x-oea-tier", {keys.hashed(GOLD): "gold", keys.hashed("sk-gateway"): keys.ANY})


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("route", ["chat", "completions", "generate"])
def test_a_tier_comes_through_sglangs_own_classes(door: Any, route: str, n: int) -> None:
    held = arrive(sampling_of(route, {"tier": "silver"}, n))
    assert wishers.tiers_of([req.rid for req in held]) == (Carried("silver", 3),) * n
    assert wishers.of([req.rid for req in held], as_it_is=False) == (-3,) * n
    assert all(req.sampling_params.custom_params["thinking_budget"] == 5 for req in held)
    default = arrive(sampling_of(route, None, n))
    assert wishers.tiers_of([req.rid for req in default]) == (Carried("bronze", 0),) * n
    assert wishers.of([req.rid for req in default], as_it_is=False) == ()
    door(BOUND)
    keyed = arrive(sampling_of(route, None, n), BEARER)
    assert wishers.tiers_of([req.rid for req in keyed]) == (Carried("gold", EXACT),) * n
    assert wishers.of([req.rid for req in keyed], as_it_is=False) == (-EXACT,) * n


@pytest.mark.parametrize("route", ["chat", "completions", "generate"])
@pytest.mark.parametrize(
    ("wish", "headers"),
    [
        ({"tier": "gold"}, ()),
        ({"exact": True}, ()),
        ({"k0": 4}, ()),
        ({"tier": "gold"}, (("X-OEA-Tier", "bronze"),)),
        (None, (("X-OEA-Tier", "gold"),)),
        (None, (("x-oea-tier", "gold"), ("X-OEA-TIER", "gold"))),
        (None, (("X-OEA-Tier", "gold"), ("Authorization", "Bearer sk-wrong"))),
        ({"promise": EXACT}, ()),
        ({"tier": "bronze", "promise": EXACT}, ()),
        ({"tier": "gold", "k0": 1}, ()),
        ({"tier": ["gold"]}, ()),
        ({"tier": None}, ()),
    ],
)
def test_who_bears_no_key_gets_no_more(
    door: Any, route: str, wish: Any, headers: tuple[tuple[str, str], ...]
) -> None:
    door(BOUND)
    with pytest.raises(ValueError, match=r"^[ -~]+$"):
        arrive(sampling_of(route, wish), *headers)
    assert not wishers.tiered


def test_each_of_a_batch_is_held_to_it(door: Any) -> None:
    door(BOUND)
    given = [sampling_of("generate", {"tier": tier}) for tier in ("silver", "gold", "bronze")]
    held = arrive(given, BEARER, text=["a", "b", "c"])
    assert [each.tier for each in wishers.tiers_of([req.rid for req in held])] == [
        "silver",
        "gold",
        "bronze",
    ]
    with pytest.raises(ValueError, match="silver is above tier bronze"):
        arrive(given, text=["a", "b", "c"])
    alike = arrive(sampling_of("generate", {"tier": "silver"}), BEARER, text=["a", "b"])
    assert [each.tier for each in wishers.tiers_of([req.rid for req in alike])] == [
        "silver",
        "silver",
    ]


def test_what_no_client_says_says_nothing_of_it(door: Any) -> None:
    from sglang.srt.managers.io_struct import EmbeddingReqInput, GenerateReqInput

    for path in ("/health", "/health_generate"):
        obj = GenerateReqInput(text="x", sampling_params={"max_new_tokens": 1})
        wish_door.before_generate_request(MANAGER, obj, http_request(path=path))
        assert obj.sampling_params == {"max_new_tokens": 1}
    embedding = EmbeddingReqInput(text="x")
    wish_door.before_generate_request(MANAGER, embedding, http_request())
    assert embedding.sampling_params is None
    from_inside = GenerateReqInput(text="x")
    wish_door.before_generate_request(MANAGER, from_inside)
    assert from_inside.sampling_params == {
        "custom_params": {"oea": {"tier": "bronze", "promise": 0}}
    }
    bad = GenerateReqInput(text="x", sampling_params={"custom_params": "gold"})
    with pytest.raises(ValueError, match="custom_params: 'gold' is no object"):
        wish_door.before_generate_request(MANAGER, bad, http_request())


def test_what_the_operator_prefers_is_no_clients_wish(door: Any) -> None:
    from sglang.srt.managers.io_struct import GenerateReqInput

    door(BOUND)
    prefers = SimpleNamespace(
        **vars(MANAGER), preferred_sampling_params={"custom_params": {"oea": {"exact": True}}}
    )
    obj = GenerateReqInput(text="x", sampling_params={})
    wish_door.before_generate_request(prefers, obj, http_request())
    assert obj.sampling_params["custom_params"]["oea"] == {"tier": "bronze", "promise": EXACT}
    obj = GenerateReqInput(text="x", sampling_params={"custom_params": {"oea": {"exact": True}}})
    with pytest.raises(ValueError, match="exact is above tier bronze"):
        wish_door.before_generate_request(prefers, obj, http_request())


def test_after_a_live_change_those_of_the_schedulers_hold(
    door: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = {
        "model": {"top_k": 4},
        "least_k0": 2,
        "settings": Settings(tiers="gold: k0=4; lead: auto").live(),
    }
    monkeypatch.setattr(wish_door, "known", lambda: state)
    held = arrive(sampling_of("generate", {"tier": "gold"}))
    assert wishers.tiers_of(["r0"]) == (Carried("gold", 4),)
    with pytest.raises(
        ValueError, match="'silver' is no tier of this server; there are gold, lead"
    ):
        arrive(sampling_of("generate", {"tier": "silver"}))
    state["settings"] = Settings().live()
    with pytest.raises(ValueError, match="this server has no tiers"):
        arrive(sampling_of("generate", {"tier": "gold"}))
    assert held[0].rid == "r0"


def rows_of(wishes: list[Carried | None]) -> list[Any]:
    """SGLang's requests, as the door has admitted them."""
    return [
        request(f"t{i}", None if each is None else Admitted.of(*each))
        for i, each in enumerate(wishes)
    ]


MIXED = [
    Carried("gold", EXACT),
    None,
    Carried("silver", 3),
    Carried("bronze", 0),
    Carried("bronze", 0),
]


def recounted(logits: torch.Tensor, chosen: Any, rows: list[int]) -> tuple[int, float]:
    """Tokens and mass of some rows, from what SGLang was given."""
    scores = logits.softmax(-1)
    own = scores.topk(4).values.sum(-1)
    taken = torch.where(chosen.topk_weights > 0, scores.gather(1, chosen.topk_ids.long()), 0).sum(
        -1
    )
    return len(rows), float((taken / own)[rows].sum())


def test_what_the_rows_of_each_tier_keep_is_counted(now: runtime.Runtime) -> None:
    logits, held = torch.randn(5, 16), rows_of(MIXED)
    before = now.tally.data.clone() if now.tally is not None else None
    chosen = step_of(now, held, lambda: select(logits))
    found = tier_counts.counts.read()
    assert found is not None
    assert list(found) == ["gold", "silver", "bronze"]
    for tier, rows in (("gold", [0]), ("silver", [2]), ("bronze", [3, 4])):
        tokens, mass, broken = found[tier]
        expected = recounted(logits, chosen, rows)
        assert (tokens, broken) == (expected[0], 0)
        assert mass / MASS_UNIT == pytest.approx(expected[1], abs=1e-5)
    assert found["gold"][1] == MASS_UNIT
    assert found["bronze"][1] < 2 * MASS_UNIT
    assert tier_counts.counts.read() is None, "nothing came since"
    assert now.tally is not None
    assert before is not None
    total = (now.tally.data - before)[0, -1]
    assert total / MASS_UNIT == pytest.approx(
        recounted(logits, chosen, [0, 1, 2, 3, 4])[1], abs=1e-5
    )


def test_steps_that_sglang_routes_keep_all(now: runtime.Runtime) -> None:
    assert now.steering.change(Settings(policy="vanilla")) is None
    step_of(now, rows_of(MIXED), lambda: select(torch.randn(5, 16)))
    assert tier_counts.counts.read() == {
        "gold": (1, MASS_UNIT, 0),
        "silver": (1, MASS_UNIT, 0),
        "bronze": (2, 2 * MASS_UNIT, 0),
    }


def test_a_promise_that_is_not_kept_is_counted(
    now: runtime.Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wishes are lost between the requests and the layers."""
    held, logits = rows_of(MIXED), torch.randn(5, 16)
    monkeypatch.setattr(runtime.Runtime, "asked", lambda self, rows: None)
    step_of(now, held, lambda: select(logits))
    found = tier_counts.counts.read()
    assert found is not None
    assert {tier: broken for tier, (_, _, broken) in found.items()} == {
        "gold": 1,
        "silver": 1,
        "bronze": 0,
    }


def test_a_broken_row_was_not_guaranteed_anything(now: runtime.Runtime) -> None:
    logits = torch.randn(5, 16)
    logits[2] = torch.nan
    step_of(now, rows_of(MIXED), lambda: select(logits))
    found = tier_counts.counts.read()
    assert found is not None
    assert found["silver"] == (1, 0, 1)


def test_rows_of_drafts_are_those_of_their_request(now: runtime.Runtime) -> None:
    logits = torch.randn(3 * WIDTH, 16)
    held = rows_of([Carried("bronze", 0), Carried("gold", EXACT), None])
    chosen = step_of(now, held, lambda: select(logits), Drafts(WIDTH, tree=False))
    found = tier_counts.counts.read()
    assert found is not None
    assert found["gold"] == (WIDTH, WIDTH * MASS_UNIT, 0)
    assert found["bronze"][1] / MASS_UNIT == pytest.approx(
        recounted(logits, chosen, list(range(WIDTH)))[1], abs=1e-5
    )


@pytest.mark.parametrize("padding", [gathered.MAX_LEN, gathered.SUM_LEN])
@pytest.mark.parametrize("own", [0, 2])
def test_a_rank_counts_its_own_rows_though_another_speaks(
    now: runtime.Runtime, monkeypatch: pytest.MonkeyPatch, own: int, padding: str
) -> None:
    counts = (3, 0, 2)
    told = ((0, -EXACT, 0), (), (-3, 0))
    monkeypatch.setattr(wish_gather, "asked", told)
    now.rows.ranks = Ranks(3, own)
    assert now.tally is not None
    tally = now.tally.data.clone()
    tiers = {0: Carried("bronze", 0), -EXACT: Carried("gold", EXACT), -3: Carried("silver", 3)}
    held = rows_of([tiers[asked] for asked in told[own]])
    rows = torch.randn(5, 16)
    given = gathered.batch(counts, own, rids=[req.rid for req in held])

    def layers(forward_batch: Any) -> tuple[Any, list[int]]:
        slots = gathered.pad(forward_batch, padding)
        return select(gathered.laid_out(rows, counts, slots)), slots

    chosen, slots = through(given, layers)
    found, real = tier_counts.counts.read(), gathered.at(counts, slots)
    assert found is not None
    mine = [row for row in range(5) if (row < 3) == (own == 0)]
    for tier, (tokens, mass, broken) in found.items():
        its = [row for row, asked in zip(mine, told[own], strict=True) if tiers[asked].tier == tier]
        routed = SimpleNamespace(
            topk_ids=chosen.topk_ids[real], topk_weights=chosen.topk_weights[real]
        )
        assert (tokens, broken) == (len(its), 0)
        assert mass / MASS_UNIT == pytest.approx(recounted(rows, routed, its)[1], abs=1e-5)
    assert bool((now.tally.data != tally).any()) == (own == 0), (
        "the first rank with tokens counts the step, and it alone"
    )


def test_tiers_beyond_what_there_are_series_for_are_others(now: runtime.Runtime) -> None:
    for i in range(MOST_NAMES + 3):
        step_of(now, rows_of([Carried(f"t{i}", 0), None]), lambda: select(torch.randn(2, 16)))
    found = tier_counts.counts.read()
    assert found is not None
    assert len(found) == MOST_NAMES + 1
    assert found["other"][0] == 3


def test_where_nobody_has_a_tier_no_row_is_written_down(now: runtime.Runtime) -> None:
    assert now.tally is not None
    step_of(now, [request("a", {"exact": True}), request("b")], lambda: select(torch.randn(2, 16)))
    assert not any(held[-2] for held in now.tally.at.values())
    assert tier_counts.counts.read() is None


def test_what_clients_got_is_observed_by_tier(door: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from prometheus_client import CollectorRegistry

    registry = CollectorRegistry()
    monkeypatch.setattr(tier_times, "metrics", tier_metrics.Times(registry))
    state = SimpleNamespace(
        obj=SimpleNamespace(sampling_params={"custom_params": {"oea": Admitted.of("gold", EXACT)}})
    )
    clock = iter([10.0, 10.5, 10.6, 11.0])
    monkeypatch.setattr(tier_times, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    for tokens, finished in ((1, False), (3, False), (3, False), (4, True)):
        state.finished = finished
        tier_times.after_collect_metrics(
            None, None, state, SimpleNamespace(completion_tokens=[9, tokens]), 1
        )
    other = SimpleNamespace(
        obj=SimpleNamespace(sampling_params={"max_new_tokens": 1}), finished=True
    )
    tier_times.after_collect_metrics(None, None, other, SimpleNamespace(completion_tokens=[1]), 0)
    found = {
        name: registry.get_sample_value(f"oea_tier_{name}", {"tier": "gold"})
        for name in (
            "requests_total",
            "tokens_total",
            *(f"inter_token_latency_seconds_{part}" for part in ("sum", "count")),
        )
    }
    assert list(found.values()) == [1, 4, pytest.approx(1.0), 3]
    assert tier_times.metrics.served["gold"][:3] == (1, 4, 3)
    assert tier_times.metrics.served["gold"].seconds == pytest.approx(1.0)


@pytest.mark.parametrize("level", ["NORMAL", "ADMIN_OPTIONAL", "ADMIN_FORCE"])
@pytest.mark.parametrize("bearer", [f"Bearer {GOLD}", "Bearer sk-wrong", "Bearer api", None])
def test_a_tiers_key_is_served_where_the_api_key_is_and_changes_nothing(
    door: Any, level: str, bearer: str | None
) -> None:
    from sglang.srt.utils.auth import AuthLevel, decide_request_auth

    door(BOUND)
    decision = decide_request_auth(
        method="POST",
        path="/generate",
        authorization_header=bearer,
        api_key="api",
        admin_api_key=None,
        auth_level=AuthLevel[level],
    )
    served = bearer is not None and (
        bearer.endswith("api") or (level == "NORMAL" and bearer.endswith(GOLD))
    )
    assert decision.allowed == (served and level != "ADMIN_FORCE")


@pytest.mark.anyio
async def test_a_tier_that_keys_are_bound_to_is_not_taken_away(
    door: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    schedulers = http.Schedulers(SimpleNamespace(), BOUND)
    monkeypatch.setattr(tier_times, "make", None)
    with pytest.raises(RefusalError, match="they need --enable-metrics"):
        await schedulers.change({"tiers": TIERS})
    monkeypatch.setattr(tier_times, "make", object)
    for tiers in ("silver: k0=3", None):
        with pytest.raises(
            RefusalError, match=r"keys are bound to gold \(tier_keys\), which would be gone"
        ):
            await schedulers.change({"tiers": tiers})


def test_all_ranks_check_what_a_change_of_tiers_promises(now: runtime.Runtime) -> None:
    def refused(**knobs: Any) -> str | None:
        return now.steering.problem_of(Settings(**{"k0": "2", "min_batch": 2, **knobs}))

    assert refused(tiers=TIERS) is None
    assert (
        refused(tiers="low: k0=1")
        == "tiers: low: k0=1 is below 2, the least that this server takes; auto promises no k0"
    )
    assert refused(tiers="high: k0=5") == "tiers: high: k0=5 is above 4, the model's top k"
    assert now.steering.change(Settings(k0="2", tiers="two: k0=2")) is None
    assert refused(tiers="two: k0=2", k0="3") is None, "the higher of both holds"
