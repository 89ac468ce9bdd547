"""A model that routes as GLM-4.5 and DeepSeek-V3 do, served: sigmoid scores, a bias that chooses,
groups, scaled weights, a shared expert. Its checkpoint is made here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from oea_server.client.ask import ask
from oea_server.client.server import SGLANG, Server
from tests.engine.patched import IS_PATCHED
from tests.engine.recount import Together, record_together
from tests.engine.test_cpu_models import made
from tests.servers import SETTLE, TWO_RANKS
from tests.transcript import REPLAY

pytestmark = [
    pytest.mark.launch,
    pytest.mark.skipif(
        IS_PATCHED or not REPLAY, reason="served once, where SGLang keeps routing replays"
    ),
]
LAYERS, EXPERTS, K, GROUPS, TOP_GROUPS, K0 = 2, 16, 4, 4, 2, 2
EXPERT_BYTES = 3 * 64 * 32 * 4
OURS = ("--oea-k0", str(K0), "--oea-min-batch", "2", "--oea-pool", "union")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("glm4_moe")
    model = made(
        folder,
        "Glm4Moe",
        num_hidden_layers=LAYERS,
        head_dim=16,
        n_routed_experts=EXPERTS,
        n_shared_experts=1,
        n_group=GROUPS,
        topk_group=TOP_GROUPS,
        first_k_dense_replace=0,
        routed_scaling_factor=2.5,
        norm_topk_prob=True,
    )
    with torch.no_grad():
        for layer in model.model.layers:
            layer.mlp.gate.weight.normal_()
            layer.mlp.gate.e_score_correction_bias.normal_(std=0.1)
    model.save_pretrained(folder)
    return folder


def start(folder: Path, *flags: str, **given: Any) -> Server:
    common = (
        "--dtype",
        "float32",
        "--max-total-tokens",
        "4096",
        "--enable-return-routed-experts",
        "--enable-metrics",
    )
    server = Server("--model-path", str(folder), *common, *flags, **given)
    server.settle = SETTLE
    return server


@pytest.fixture(scope="module")
def server(checkpoint: Path) -> Iterator[Server]:
    with start(checkpoint, *OURS) as running:
        yield running


@pytest.fixture(scope="module")
def routed(server: Server) -> Together:
    return record_together(server, LAYERS, K)


def alone(server: Server) -> tuple[list[int], list[float]]:
    """Ids and log-probabilities of a prompt that decodes by itself."""
    sampling = {"max_new_tokens": 24, "temperature": 0, "ignore_eos": True}
    asked = {"input_ids": [5, 6, 7, 9], "sampling_params": sampling, "return_logprob": True}
    answer = ask("POST", f"{server.url}/generate", json=asked, timeout=120).json()
    return answer["output_ids"], [each[0] for each in answer["meta_info"]["output_token_logprobs"]]


def test_what_is_counted_is_a_recount(routed: Together) -> None:
    gained, layers, tokens = routed.gained, routed.layers, routed.tokens
    unique, taken = sum(map(len, layers)), sum(map(len, tokens))
    assert gained["oea_unique_experts_count"] == len(layers)
    assert gained["oea_unique_experts_sum"] == unique < gained["oea_vanilla_unique_experts_sum"]
    assert gained["oea_routed_tokens_total"] == len(tokens)
    assert gained["oea_assignments_total"] == taken
    assert gained["oea_piggybacked_assignments_total"] == taken - K0 * len(tokens) > 0
    assert gained["oea_expert_bytes_read_total"] == unique * EXPERT_BYTES
    assert list(routed.bypassed) == ["prefill"]


def test_no_token_leaves_its_groups(routed: Together) -> None:
    assert (
        max(len({expert * GROUPS // EXPERTS for expert in token}) for token in routed.tokens)
        <= TOP_GROUPS
    )


def test_vanilla_and_a_lone_token_are_the_same(server: Server, routed: Together) -> None:
    lone = alone(server)
    try:
        server.steer(policy="vanilla")
        assert alone(server) == lone
        vanilla = record_together(server, LAYERS, K)
    finally:
        server.steer(policy="oea")
    assert {len(token) for token in vanilla.tokens} == {K}
    unique = sum(map(len, vanilla.layers))
    assert (
        vanilla.gained["oea_unique_experts_sum"]
        == vanilla.gained["oea_vanilla_unique_experts_sum"]
        == unique
    )


@pytest.mark.nightly
def test_vanilla_is_sglang_without_us(checkpoint: Path) -> None:
    plain = {"environment": {"SGLANG_PLUGINS": "oea_cpu"}, "command": SGLANG}
    with start(checkpoint, **plain) as theirs:
        expected = alone(theirs)
    with start(checkpoint, "--oea-policy", "vanilla") as ours:
        assert alone(ours) == expected


@pytest.mark.nightly
def test_two_ranks_agree_with_one(checkpoint: Path, routed: Together) -> None:
    with start(checkpoint, *OURS, *TWO_RANKS) as both:
        together = record_together(both, LAYERS, K)
    assert np.array_equal(np.sort(together.experts), np.sort(routed.experts))
    half = EXPERTS // 2
    busiest = sum(
        max(sum(expert // half == rank for expert in each) for rank in (0, 1))
        for each in together.layers
    )
    assert together.gained["oea_max_rank_unique_experts_sum"] == busiest
