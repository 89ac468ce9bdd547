"""A server as a user starts it, driven by the official client."""

from __future__ import annotations

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest
import requests

from oea_server.demo.server import Server
from tests.engine.conftest import LAYERS, NEW_TOKENS, PROMPTS, Servers, generate

HELLO: list[Any] = [{"role": "user", "content": "hello"}]


@pytest.fixture
def server(servers: Servers) -> Server:
    return servers.get("oea")


def test_warm_up_and_health_checks_are_not_counted(servers: Servers) -> None:
    transcript = servers.transcript("oea")
    assert transcript.before.get("oea_decode_batch_size_count", 0) == 0
    # record() made two health checks, then one request after the other
    steps = len(PROMPTS) * (NEW_TOKENS - 1)  # the first token comes out of prefill
    assert transcript.after["oea_decode_batch_size_count"] == steps
    assert transcript.after["oea_decode_batch_size_sum"] == steps
    assert transcript.after["oea_decode_step_seconds_count"] == steps
    assert transcript.after["oea_unique_experts_count"] == steps * LAYERS
    assert transcript.after["oea_unique_experts_sum"] == steps * LAYERS * 8


def test_the_router_says_that_it_is_active(server: Server) -> None:
    assert 'oea_router_active{reason=""} 1.0' in requests.get(f"{server.url}/metrics", timeout=30).text
    assert "OEA: policy oea, k0 1:8,2:6,4:5,8:4,16:3, on 4 of 4 MoE layers" in server.log.read_text()


def test_a_batch_of_one_is_vanilla_to_the_bit(servers: Servers) -> None:
    for ours, plain in zip(servers.transcript("oea").generations, servers.transcript("plain").generations, strict=True):
        assert ours.ids == plain.ids
        assert ours.logprobs == plain.logprobs


def test_chat(server: Server) -> None:
    reply = server.client.chat.completions.create(model="demo", messages=HELLO, max_tokens=9, temperature=0)
    assert reply.choices[0].finish_reason == "length"
    assert reply.usage is not None
    assert reply.usage.completion_tokens == 9
    assert reply.choices[0].message.content


def test_streaming_gives_what_not_streaming_gives(server: Server) -> None:
    asked: dict[str, Any] = {"model": "demo", "messages": HELLO, "max_tokens": 30, "temperature": 0}
    whole = server.client.chat.completions.create(**asked).choices[0].message.content
    chunks = [
        chunk.choices[0].delta.content or ""
        for chunk in server.client.chat.completions.create(stream=True, **asked)
        if chunk.choices
    ]
    assert len(chunks) > 10
    assert "".join(chunks) == whole


def test_stop_cuts_the_answer(server: Server) -> None:
    asked: dict[str, Any] = {"model": "demo", "messages": HELLO, "max_tokens": 40, "temperature": 0}
    whole = server.client.chat.completions.create(**asked).choices[0].message.content or ""
    word = whole[len(whole) // 2 :][:4]
    cut = server.client.chat.completions.create(stop=[word], **asked)
    assert cut.choices[0].finish_reason == "stop"
    assert cut.choices[0].message.content == whole[: whole.index(word)]


def test_sixteen_at_once_wake_fewer_experts_than_vanilla_would(server: Server) -> None:
    before = server.settled_metrics()
    with ThreadPoolExecutor(16) as pool:
        replies = list(
            pool.map(
                lambda i: server.client.chat.completions.create(
                    model="demo",
                    messages=[{"role": "user", "content": f"question {i}"}],
                    max_tokens=64,
                    temperature=1.0,
                    extra_body={"ignore_eos": True},
                ),
                range(16),
            )
        )
    assert all(reply.usage is not None and reply.usage.completion_tokens == 64 for reply in replies)
    after = server.settled_metrics()
    delta = {name: after[name] - before[name] for name in after}
    batch = delta["oea_decode_batch_size_sum"] / delta["oea_decode_batch_size_count"]
    unique = delta["oea_unique_experts_sum"] / delta["oea_unique_experts_count"]
    assert delta["oea_decode_batch_size_sum"] == 16 * 63
    assert batch > 8
    assert unique < 50  # k0=3 wakes at most 48 at 16 tokens; vanilla wakes near 77


@pytest.mark.parametrize(
    "body", ['{"model": "demo", "messages": [', '{"model": "demo"}', '{"messages": 3}']
)  # "[]" is a 500 of SGLang's own
def test_malformed_requests_get_a_4xx(server: Server, body: str) -> None:
    reply = requests.post(
        f"{server.url}/v1/chat/completions", data=body, headers={"content-type": "application/json"}, timeout=30
    )
    assert 400 <= reply.status_code < 500


def test_a_wrong_model_is_answered_as_sglang_answers_it(server: Server) -> None:
    """SGLang serves one model and answers for any name (0.5.17 to 0.5.23); so do we."""
    reply = server.client.chat.completions.create(model="nonsense", messages=HELLO, max_tokens=2)
    assert reply.usage is not None
    assert reply.usage.completion_tokens == 2


def test_a_prompt_of_10_mb_is_refused_and_disturbs_nobody(server: Server) -> None:
    with ThreadPoolExecutor(2) as pool:
        other = pool.submit(generate, server, PROMPTS[0], max_new_tokens=60)
        with pytest.raises(openai.BadRequestError, match=r"(?i)longer|exceed|maximum|context"):
            server.client.chat.completions.create(
                model="demo", messages=[{"role": "user", "content": "x " * 5_000_000}], max_tokens=2
            )
        assert len(other.result().ids) == 60


def test_a_connection_dropped_mid_stream_disturbs_nobody(server: Server) -> None:
    alone = generate(server, PROMPTS[1]).ids
    request = (
        b'{"model": "demo", "stream": true, "max_tokens": 2000, "ignore_eos": true, '
        b'"messages": [{"role": "user", "content": "go on"}]}'
    )
    with socket.create_connection(("127.0.0.1", server.port)) as wire:
        head = ("POST /v1/chat/completions HTTP/1.1", "Host: x", "Content-Type: application/json")
        wire.sendall("\r\n".join((*head, f"Content-Length: {len(request)}", "", "")).encode() + request)
        assert b"200" in wire.recv(4096)
        assert wire.recv(4096)
    # the abandoned request ends, and the next one is alone again, so it answers as before
    deadline = time.monotonic() + 60
    while "num_running_reqs" in (text := requests.get(f"{server.url}/metrics", timeout=30).text):
        running = [line for line in text.splitlines() if line.startswith("sglang:num_running_reqs{")]
        if all(line.endswith(" 0.0") for line in running):
            break
        assert time.monotonic() < deadline, running
        time.sleep(1)
    assert generate(server, PROMPTS[1]).ids == alone


def test_the_text_is_prometheus(server: Server) -> None:
    helps = {
        line.split()[2]
        for line in requests.get(f"{server.url}/metrics", timeout=30).text.splitlines()
        if line.startswith("# HELP oea_")
    }
    assert helps == {"oea_router_active", "oea_unique_experts", "oea_decode_batch_size", "oea_decode_step_seconds"}
