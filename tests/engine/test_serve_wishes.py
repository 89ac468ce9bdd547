"""Wishes on a real server: kept in a crowd and alone, by the official client, or refused in one
line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import openai
import pytest
import requests

from oea_server.client.ask import ask
from oea_server.client.server import Server
from tests.engine.recount import replay_of
from tests.servers import LAYERS, K, Servers
from tests.transcript import PROMPTS, REPLAY, generate

pytestmark = pytest.mark.server("oea")

CROWD, NEW_TOKENS, EXACT = 16, 24, 5
KNOBS = {"k0": "2", "share": "0.05", "mix": "0.5", "min_batch": 2}
CLOSE = 2e-5
"""In log probability: with other neighbours in it, the product with an expert's weights rounds
otherwise."""


@pytest.fixture
def server(servers: Servers) -> Iterator[Server]:
    running = servers.get("oea")
    running.steer(policy="oea", **KNOBS)
    yield running
    running.steer(policy="oea", k0="auto", share="auto", mix="auto", min_batch=2)


def crowd(server: Server, wishes: dict[int, Any], size: int = CROWD) -> list[dict[str, Any]]:
    """Greedy prompts of one length in one request, which prefill together and decode in step; what
    came of each."""
    for _ in range(20):
        ask("POST", f"{server.url}/flush_cache", server.key).raise_for_status()
        before = server.stats()["bypassed"]
        sampling = {"temperature": 0, "max_new_tokens": NEW_TOKENS, "ignore_eos": True}
        each = [
            {**sampling, **({"custom_params": {"oea": wishes[i]}} if i in wishes else {})}
            for i in range(size)
        ]
        reply = requests.post(
            f"{server.url}/generate",
            json={
                "input_ids": [
                    [100 + 7 * (i if size > 1 else EXACT) + j for j in range(12)]
                    for i in range(size)
                ],
                "sampling_params": each,
                "return_logprob": True,
                "return_routed_experts": REPLAY,
            },
            timeout=300,
        )
        assert reply.status_code == 200, reply.text
        server.settled_metrics()
        if server.stats()["bypassed"]["prefill"] - before.get("prefill", 0) == 1:
            return [{"text": each["text"], **each["meta_info"]} for each in reply.json()]
    raise AssertionError("the prompts never came into one batch")


def logprobs(answer: dict[str, Any]) -> np.ndarray:
    return np.array([each[0] for each in answer["output_token_logprobs"]])


def decoded(answer: dict[str, Any]) -> np.ndarray:
    """The experts of each decode step, [steps, layers, k]."""
    return np.sort(replay_of(answer, LAYERS, K)[-(NEW_TOKENS - 1) :], axis=2)


@pytest.mark.parametrize("size", [CROWD, 1])
def test_an_exact_request_answers_as_vanilla_does(server: Server, size: int) -> None:
    """In a crowd of rows that are routed otherwise, and alone."""
    me = EXACT if size > 1 else 0
    routed, exact = crowd(server, {}, size), crowd(server, {me: {"exact": True}}, size)
    server.steer(policy="vanilla")
    vanilla = crowd(server, {}, size)
    assert exact[me]["text"] == vanilla[me]["text"]
    assert np.abs(logprobs(exact[me]) - logprobs(vanilla[me])).max() < CLOSE
    if REPLAY:
        assert (decoded(exact[me]) == decoded(vanilla[me])).all()
        if size > 1:
            assert not (decoded(routed[me]) == decoded(vanilla[me])).all()
            others = [i for i in range(size) if i != me]
            assert any((decoded(exact[i]) != decoded(vanilla[i])).any() for i in others)


def test_neighbours_keep_no_less(server: Server) -> None:
    """Of their own router mass, on average: the exact row's experts are awake for them, too."""
    kept = []
    for wishes in ({}, {EXACT: {"exact": True}}):
        before = server.settled_metrics()
        crowd(server, wishes)
        after = server.settled_metrics()
        gained = {name: after[name] - before[name] for name in after if name in before}
        mass, rows = gained["oea_kept_router_mass_total"], gained["oea_routed_tokens_total"]
        alone = rows / CROWD * len(wishes)  # rows of the exact request keep all of it
        kept.append((mass - alone) / (rows - alone))
    assert kept[1] > kept[0]


def chat(server: Server, wish: Any, **more: Any) -> Any:
    messages: list[Any] = [{"role": "user", "content": "hello"}]
    return server.client.chat.completions.create(
        model="demo",
        messages=messages,
        max_tokens=12,
        extra_body={"custom_params": {"oea": wish}},
        **more,
    )


@pytest.mark.parametrize("wish", [{"exact": True}, {"k0": 6}, {"exact": False}])
def test_the_official_client_wishes(server: Server, wish: Any) -> None:
    whole = chat(server, wish, temperature=0)
    assert whole.usage.completion_tokens == 12
    chunks = [
        each.choices[0].delta.content or ""
        for each in chat(server, wish, temperature=0, stream=True)
    ]
    assert "".join(chunks) == whole.choices[0].message.content
    several = chat(server, wish, temperature=0, n=3)
    assert len(several.choices) == 3
    if wish == {"exact": True}:  # each of them, in a step of three
        assert {each.message.content for each in several.choices} == {
            whole.choices[0].message.content
        }
    completed = server.client.completions.create(
        model="demo", prompt=PROMPTS[:2], max_tokens=6, extra_body={"custom_params": {"oea": wish}}
    )
    assert len(completed.choices) == 2


def test_nonsense_is_a_400_with_its_line_and_nothing_is_scheduled(server: Server) -> None:
    before = server.settled_metrics()["oea_routed_tokens_total"]
    for wish, line in (
        ({"k0": True}, "custom_params.oea.k0: True is no whole number"),
        ({"k0": 9}, "custom_params.oea.k0: 9 is above 8, the model's top k"),
        ({"tier": "gold"}, "custom_params.oea.tier: this server has no tiers"),
    ):
        for more in ({}, {"stream": True}, {"n": 2}):
            with pytest.raises(openai.BadRequestError) as refused:
                chat(server, wish, **more)
            assert line in str(refused.value)
        body = {
            "text": list(PROMPTS[:2]),
            "sampling_params": [{}, {"custom_params": {"oea": wish}}],
        }
        reply = requests.post(f"{server.url}/generate", json=body, timeout=30)
        assert (reply.status_code, line in reply.text) == (400, True)
    assert server.settled_metrics()["oea_routed_tokens_total"] == before
    assert generate(server, PROMPTS[0]).ids


def test_a_wish_below_the_floor_names_it_after_a_live_change_too(server: Server) -> None:
    server.steer(k0="5", share="0")
    with pytest.raises(
        openai.BadRequestError, match="k0: 4 is below 5, which this server guarantees each token"
    ):
        chat(server, {"k0": 4})
    server.steer(k0="3")
    assert chat(server, {"k0": 4}).choices[0].message.content
    assert server.config()["least_k0"] == 3
