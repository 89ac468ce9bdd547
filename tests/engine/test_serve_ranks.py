"""OEA on one rank (plain `sglang serve`, steered by variables) and on two (TP2/EP2) is the same
OEA."""

from __future__ import annotations

import numpy as np
import pytest

from oea_server.client.server import Server
from tests.engine.client import OfficialClient
from tests.engine.recount import TOGETHER, TOGETHER_STEPS
from tests.servers import LAYERS, Servers, on
from tests.transcript import NEW_TOKENS, PROMPTS, Generation, generate

DECODED = NEW_TOKENS - 1


@pytest.fixture
def server(servers: Servers) -> Server:
    return servers.get("k3-ep2")


def decode_experts(generation: Generation) -> np.ndarray:
    """The part of the replay that was decoded: [steps, layers, k]."""
    return generation.experts[-DECODED:]


@pytest.mark.parametrize("kind", [on("k3"), on("k3-ep2")])
def test_routing_replay_sees_the_policys_choice(servers: Servers, kind: str) -> None:
    """A lone token under k0=3 and min_batch=1 holds exactly 3 experts; its prompt was routed
    vanilla."""
    for generation in servers.transcript(kind).generations:
        decoded = decode_experts(generation)
        assert {len(set(row)) for row in decoded.reshape(-1, decoded.shape[-1]).tolist()} == {3}
        prompt = generation.experts[: len(generation.prompt_ids)]
        assert {len(set(row)) for row in prompt.reshape(-1, prompt.shape[-1]).tolist()} == {8}


@pytest.mark.parametrize("kind", [on("k3"), on("k3-ep2")])
def test_the_metric_is_an_independent_recount_of_the_replay(servers: Servers, kind: str) -> None:
    transcript = servers.transcript(kind)
    decoded = np.concatenate([decode_experts(generation) for generation in transcript.generations])
    rows = [set(row) for row in decoded.reshape(-1, decoded.shape[-1]).tolist()]
    assert (
        transcript.after["oea_unique_experts_count"] == len(rows) == len(PROMPTS) * DECODED * LAYERS
    )
    assert transcript.after["oea_unique_experts_sum"] == sum(map(len, rows))
    if kind == "k3-ep2":
        busiest = sum(
            max(sum(expert // 64 == rank for expert in row) for rank in (0, 1)) for row in rows
        )
        assert transcript.after["oea_max_rank_unique_experts_sum"] == busiest
        assert transcript.after["oea_max_rank_unique_experts_count"] == len(rows)
    else:
        assert "oea_max_rank_unique_experts_sum" not in transcript.after


@pytest.mark.parametrize("kind", [on("k3"), on("k3-ep2")])
def test_the_counters_are_a_recount_of_many_at_once(servers: Servers, kind: str) -> None:
    """Seven prompts that decode in step, with health checks in between; recounted by sets."""
    together = servers.together(kind)
    gained, layers, tokens = together.gained, together.layers, together.tokens
    unique, taken = sum(map(len, layers)), sum(map(len, tokens))
    # an expert, float32 here; SGLang on CPUs pads its width to 32 for each of two ranks, and so it
    # is read
    width = 64 if kind == "k3-ep2" else 32
    size = 3 * 192 * width * 4
    assert gained["oea_decode_batch_size_sum"] == TOGETHER * TOGETHER_STEPS
    assert (
        gained["oea_unique_experts_count"]
        == gained["oea_vanilla_unique_experts_count"]
        == len(layers)
    )
    assert gained["oea_unique_experts_sum"] == unique
    assert gained["oea_routed_tokens_total"] == len(tokens)
    assert gained["oea_assignments_total"] == taken
    assert gained["oea_piggybacked_assignments_total"] == taken - 3 * len(tokens)
    assert gained["oea_expert_bytes_read_total"] == unique * size
    saved = gained["oea_vanilla_unique_experts_sum"] - unique
    assert saved > 0
    assert gained["oea_expert_bytes_saved_total"] == saved * size
    if kind == "k3-ep2":
        busiest = sum(
            max(sum(expert // 64 == rank for expert in each) for rank in (0, 1)) for each in layers
        )
        assert gained["oea_max_rank_unique_experts_sum"] == busiest
    assert list(together.bypassed) == ["prefill"]


@pytest.mark.server("k3", "k3-ep2")
@pytest.mark.parametrize("prompt", range(len(PROMPTS)))
def test_two_ranks_agree_with_one(servers: Servers, prompt: int) -> None:
    """Same experts for the same tokens, log-probabilities within float32. Were the two ranks to
    choose differently, experts would be missing or doubled in the sum, and these would be far
    apart."""
    one = servers.transcript("k3").generations[prompt]
    two = servers.transcript("k3-ep2").generations[prompt]
    assert one.ids == two.ids
    assert np.array_equal(np.sort(one.experts), np.sort(two.experts))
    np.testing.assert_allclose(one.logprobs, two.logprobs, atol=2e-3)


@pytest.mark.server("k3-ep2")
class TestTwoRanks(OfficialClient):
    pass


@pytest.mark.server("plain", "k3")
def test_pruning_a_lone_token_is_not_vanilla(servers: Servers) -> None:
    """The servers above do differ from vanilla, so that agreeing with each other says something."""
    pruned, plain = servers.transcript("k3").generations, servers.transcript("plain").generations
    assert any(a.ids != b.ids for a, b in zip(pruned, plain, strict=True))
    assert all(a.prompt_logprobs == b.prompt_logprobs for a, b in zip(pruned, plain, strict=True))


@pytest.mark.server("plain", "k3-ep2")
def test_both_ranks_follow_a_change(servers: Servers) -> None:
    """Off and on again: were one rank alone to follow, experts would be missing from the sum or
    double in it."""
    server, plain = servers.get("k3-ep2"), servers.transcript("plain").generations[0]
    try:
        server.steer(policy="vanilla")
        off = generate(server, PROMPTS[0])
        assert off.ids == plain.ids
        np.testing.assert_allclose(off.logprobs, plain.logprobs, atol=2e-3)
    finally:
        server.steer(policy="oea")
    on = generate(server, PROMPTS[0])
    assert on.ids == servers.transcript("k3-ep2").generations[0].ids
