"""A server as a user starts it, driven by the official client."""

from __future__ import annotations

import socket
import time
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest
import requests

from oea_server.client.server import Server
from tests.engine.client import OfficialClient
from tests.engine.recount import TOGETHER_STEPS, record_together
from tests.servers import LAYERS, K, Servers
from tests.transcript import EXTRA_STEPS, NEW_TOKENS, PROMPTS, REPLAY, generate

pytestmark = pytest.mark.server("oea")


@pytest.fixture
def server(servers: Servers) -> Server:
    return servers.get("oea")


def test_warm_up_and_health_checks_are_not_counted(servers: Servers) -> None:
    transcript = servers.transcript("oea")
    assert transcript.before.get("oea_decode_batch_size_count", 0) == 0
    # record() made two health checks, then one request after the other
    steps = len(PROMPTS) * (NEW_TOKENS - 1 + EXTRA_STEPS)  # the first token comes out of prefill
    assert transcript.after["oea_decode_batch_size_count"] == steps
    assert transcript.after["oea_decode_batch_size_sum"] == steps
    assert transcript.after["oea_decode_step_seconds_count"] == steps
    assert transcript.after["oea_unique_experts_count"] == steps * LAYERS
    assert transcript.after["oea_unique_experts_sum"] == steps * LAYERS * 8


def test_the_router_says_that_it_is_active(server: Server) -> None:
    assert "oea_router_active 1.0" in requests.get(f"{server.url}/metrics", timeout=30).text
    assert "OEA: policy oea, k0 1:8,2:5,4:4,16:3, on 4 of 4 MoE layers" in server.log.read_text()


class TestOneRank(OfficialClient):
    pass


def test_sixteen_at_once_wake_fewer_experts_than_vanilla_would(server: Server) -> None:
    tokens = 256  # for 2 s: clients on a busy machine do not all come at once
    before = server.settled_metrics()
    with ThreadPoolExecutor(16) as pool:
        replies = list(
            pool.map(
                lambda i: server.client.chat.completions.create(
                    model="demo",
                    messages=[{"role": "user", "content": f"question {i}"}],
                    max_tokens=tokens,
                    temperature=1.0,
                    extra_body={"ignore_eos": True},
                ),
                range(16),
            )
        )
    assert all(
        reply.usage is not None and reply.usage.completion_tokens == tokens for reply in replies
    )
    after = server.settled_metrics()
    delta = {name: after[name] - before[name] for name in after}
    batch = delta["oea_decode_batch_size_sum"] / delta["oea_decode_batch_size_count"]
    unique = delta["oea_unique_experts_sum"] / delta["oea_unique_experts_count"]
    assert delta["oea_decode_batch_size_sum"] == 16 * (tokens - 1 + EXTRA_STEPS)
    assert batch > 8
    assert unique < 50  # k0=3 wakes at most 48 at 16 tokens; vanilla wakes near 77


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
        wire.sendall(
            "\r\n".join((*head, f"Content-Length: {len(request)}", "", "")).encode() + request
        )
        assert b"200" in wire.recv(4096)
        assert wire.recv(4096)
    # the abandoned request ends, and the next one is alone again, so it answers as before
    deadline = time.monotonic() + 60
    while "num_running_reqs" in (text := requests.get(f"{server.url}/metrics", timeout=30).text):
        running = [
            line for line in text.splitlines() if line.startswith("sglang:num_running_reqs{")
        ]
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
    # without those that were asked for, and one which has no series before the first reason
    assert {name for name in helps if not name.startswith("oea_layer_")} - {
        "oea_router_limits"
    } == {
        "oea_router_active",
        "oea_unique_experts",
        "oea_vanilla_unique_experts",
        "oea_routed_tokens_total",
        "oea_assignments_total",
        "oea_piggybacked_assignments_total",
        "oea_router_mass_kept",
        "oea_kept_router_mass_total",
        "oea_expert_bytes_read_total",
        "oea_expert_bytes_saved_total",
        "oea_bypassed_steps_total",
        "oea_shadow_unique_experts",
        "oea_shadow_router_mass_kept",
        "oea_policy_info",
        "oea_pool_ranks",
        "oea_build_info",
        "oea_k0",
        "oea_share",
        "oea_mix",
        "oea_config_changes_total",
        "oea_decode_batch_size",
        "oea_decode_step_seconds",
        "oea_decode_requests_total",
        "oea_accepted_rows_total",
        "oea_rejected_experts_total",
    }


def chats(server: Server, tokens: int = 40) -> dict[str, float]:
    """Eight chats at once; what the metrics gained."""
    before = server.settled_metrics()
    with ThreadPoolExecutor(8) as pool:
        list(
            pool.map(
                lambda i: generate(
                    server, f"{PROMPTS[0]} {i}", max_new_tokens=tokens, temperature=1
                ),
                range(8),
            )
        )
    after = server.settled_metrics()
    return {name: after[name] - before.get(name, 0) for name in after}


def test_the_running_server_is_steered(server: Server) -> None:
    """Off, on, with other knobs; what was asked is what is counted."""
    try:
        server.steer(policy="vanilla")
        off = chats(server)
        assert off["oea_unique_experts_sum"] == off["oea_vanilla_unique_experts_sum"]
        assert off["oea_piggybacked_assignments_total"] == 0
        text = requests.get(f"{server.url}/metrics", timeout=30).text
        assert "oea_router_active 0.0" in text
        assert 'oea_router_limits{reason="the policy is vanilla"} 1.0' in text
        assert "oea_router_mass_kept 1.0" in text

        # so that lone tokens, too, hold two on a busy machine
        server.steer(policy="oea", k0=2, min_batch=1)
        on = chats(server)
        assert on["oea_unique_experts_sum"] < on["oea_vanilla_unique_experts_sum"]
        assert on["oea_unique_experts_sum"] <= 2 * on["oea_routed_tokens_total"]
        assert 0 < on["oea_piggybacked_assignments_total"] <= 6 * on["oea_routed_tokens_total"]
        assert "oea_router_active 1.0" in requests.get(f"{server.url}/metrics", timeout=30).text
        assert server.config()["settings"]["k0"] == "2"
        assert (
            "OEA: settings changed: policy vanilla -> oea, k0 auto -> 2" in server.log.read_text()
        )

        server.steer(k0=8, share="1:0,2:0.25", mix=0.5)  # without the share, that would be vanilla
        shared = chats(server)
        assert shared["oea_unique_experts_sum"] < shared["oea_vanilla_unique_experts_sum"]
        assert shared["oea_piggybacked_assignments_total"] > 0
        told = server.config()
        assert [told["share_by_batch"][batch] for batch in ("1", "2", "128")] == [0.0, 0.25, 0.25]
        text = requests.get(f"{server.url}/metrics", timeout=30).text
        assert 'oea_share{batch="2"} 0.25' in text
        assert 'oea_mix{batch="2"} 0.5' in text
    finally:
        server.steer(policy="oea", k0="auto", share="auto", mix="auto", min_batch=2)


@pytest.mark.skipif(not REPLAY, reason="SGLang 0.5.17 keeps routing replays on GPUs only")
def test_the_counterfactual_is_what_vanilla_reads(server: Server) -> None:
    """Checked where it is none: served vanilla, replayed and recounted."""
    server.steer(policy="vanilla")
    try:
        together = record_together(server, LAYERS, K)
    finally:
        server.steer(policy="oea")
    unique = sum(map(len, together.layers))
    assert (
        together.gained["oea_vanilla_unique_experts_sum"]
        == together.gained["oea_unique_experts_sum"]
        == unique
    )
    assert together.bypassed["policy"] == TOGETHER_STEPS


def test_a_wrong_knob_changes_nothing_and_says_why(server: Server) -> None:
    before = server.config()["settings"]
    with pytest.raises(RuntimeError, match="above the model's top-k 8"):
        server.steer(p=0.5, k0=9)
    assert server.config()["settings"] == before
    assert "change: k0=9 guarantees 9 experts" in server.log.read_text()


def test_switching_under_load_loses_nothing(server: Server) -> None:
    """Every chat is answered in full while the policy changes many times; a lone one is as
    before."""
    alone = generate(server, PROMPTS[2]).ids
    try:
        with ThreadPoolExecutor(8) as pool:
            replies = [
                pool.submit(generate, server, PROMPTS[i % 5], max_new_tokens=80) for i in range(8)
            ]
            switches = 0
            while not all(reply.done() for reply in replies):
                server.steer(
                    policy=("vanilla", "oea", "pruned", "random")[switches % 4], k0=1 + switches % 8
                )
                switches += 1
        assert switches > 4
        assert all(len(reply.result().ids) == 80 for reply in replies)
    finally:
        server.steer(policy="oea", k0="auto")
    assert generate(server, PROMPTS[2]).ids == alone
