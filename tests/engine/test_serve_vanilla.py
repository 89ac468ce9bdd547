"""Vanilla is SGLang without us; and SGLang on our CPU platform is the model."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from oea_server_demo import MODEL

from tests.servers import Servers
from tests.transcript import PROMPTS

with_plain = pytest.mark.server("plain", "vanilla")


@with_plain
@pytest.mark.parametrize("prompt", range(len(PROMPTS)))
def test_vanilla_is_sglang_token_for_token_and_logprob_for_logprob(
    servers: Servers, prompt: int
) -> None:
    ours = servers.transcript("vanilla").generations[prompt]
    plain = servers.transcript("plain").generations[prompt]
    assert ours.ids == plain.ids
    assert ours.logprobs == plain.logprobs
    assert ours.prompt_logprobs == plain.prompt_logprobs
    assert np.array_equal(ours.experts, plain.experts)


@pytest.mark.server("plain", "oea")
def test_a_batch_of_one_is_vanilla_to_the_bit(servers: Servers) -> None:
    for ours, plain in zip(
        servers.transcript("oea").generations, servers.transcript("plain").generations, strict=True
    ):
        assert ours.ids == plain.ids
        assert ours.logprobs == plain.logprobs


@pytest.mark.server("vanilla")
def test_vanilla_says_that_routing_is_not_ours(servers: Servers) -> None:
    text = servers.transcript("vanilla").text
    assert "oea_router_active 0.0" in text
    assert 'oea_router_limits{reason="the policy is vanilla"} 1.0' in text


@pytest.mark.server("vanilla")
def test_vanilla_is_counted_too(servers: Servers) -> None:
    after = servers.transcript("vanilla").after
    assert after["oea_unique_experts_sum"] == 8 * after["oea_unique_experts_count"] > 0


@pytest.mark.server("plain")
def test_without_us_there_are_no_metrics_of_ours(servers: Servers) -> None:
    assert servers.transcript("plain").after == {}


@pytest.mark.server("vanilla")
def test_the_logits_are_transformers(servers: Servers) -> None:
    """Log-probabilities of prompt and answer against Hugging Face's Qwen3-MoE on the same
    checkpoint."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32).eval()
    worst = 0.0
    for generation in servers.transcript("vanilla").generations:
        ids = torch.tensor([generation.prompt_ids + generation.ids])
        with torch.inference_mode():
            logprobs = model(ids).logits[0].log_softmax(-1)
        theirs = logprobs[:-1].gather(1, ids[0, 1:, None])[:, 0]
        ours = torch.tensor(generation.prompt_logprobs + generation.logprobs)
        worst = max(worst, float((ours - theirs).abs().max()))
        assert logprobs[len(generation.prompt_ids) - 1 : -1].argmax(-1).tolist() == generation.ids
    print(f"largest difference of a log-probability: {worst:.2e}")
    assert worst < 1e-3


@with_plain
def test_sglangs_own_metrics_are_all_there(servers: Servers) -> None:
    """Those of the HTTP process too, such as the time to first token."""
    plain, ours = (servers.transcript(kind).families for kind in ("plain", "vanilla"))
    assert "sglang:time_to_first_token_seconds" in plain
    assert plain <= ours
    assert all(name.startswith("oea_") for name in ours - plain)
