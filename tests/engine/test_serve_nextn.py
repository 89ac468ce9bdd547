"""A model's own layer that looks ahead drafts (NEXTN), in a chain: what is routed, counted and
answered."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from oea_server_demo import GLM4_MOE, HELD_OUT
from safetensors import safe_open

from oea_server.client.server import SGLANG, Server
from oea_server.lab.demo.glm4_moe import CONFIG
from tests.engine.patched import IS_PATCHED
from tests.engine.speculating import (
    NEW_TOKENS,
    Answers,
    answers,
    check_rejected,
    generated,
    leading_to,
    start,
)
from tests.transcript import REPLAY

pytestmark = [
    pytest.mark.launch,
    pytest.mark.skipif(
        IS_PATCHED or not REPLAY, reason="served once; the CPU platform has stand-ins for 0.5.23"
    ),
]
K0, K, PROMPTS = 2, int(CONFIG["num_experts_per_tok"]), 4
DENSE = int(CONFIG["first_k_dense_replace"])
LAYERS = int(CONFIG["num_hidden_layers"]) - DENSE
OURS = ("--oea-k0", str(K0), "--oea-min-batch", "2", "--oea-pool", "union", "--oea-policy", "oea")


def chain(steps: int) -> tuple[str, ...]:
    """The flags for so many drafts after one another."""
    return tree(1, steps, steps + 1)


def tree(topk: int, steps: int, width: int) -> tuple[str, ...]:
    """The flags for branches of drafts, of which so many rows are verified, the token's among
    them."""
    numbers = ("--speculative-num-steps", str(steps), "--speculative-num-draft-tokens", str(width))
    return ("--speculative-algorithm", "NEXTN", "--speculative-eagle-topk", str(topk), *numbers)


def asked(prompts: int = PROMPTS) -> dict[str, Any]:
    """The beginnings of texts that the model has not seen."""
    texts = [json.loads(line)["text"][:120] for line in HELD_OUT.read_text().splitlines()[:prompts]]
    return {"text": texts}


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("steps")


@pytest.fixture(scope="module")
def server(steps: Path) -> Iterator[Server]:
    with start(GLM4_MOE, *chain(1), *OURS, environment={"ROUTED_FOLDER": str(steps)}) as running:
        yield running


@pytest.fixture(scope="module")
def vanilla(server: Server) -> Answers:
    """What the policy vanilla answers; the server may be stopped afterwards."""
    server.steer(policy="vanilla")
    found = answers(server, asked())
    server.steer(policy="oea")
    return found


def biases() -> list[torch.Tensor]:
    """What each MoE layer's router adds to its scores to choose."""
    with safe_open(GLM4_MOE / "model.safetensors", "pt") as weights:
        name = "model.layers.{}.mlp.gate.e_score_correction_bias"
        return [weights.get_tensor(name.format(layer)) for layer in range(DENSE, DENSE + LAYERS)]


def floors_of(choice: torch.Tensor, per_request: int, draft_k0: int = K0) -> list[list[int]]:
    """What each row is guaranteed."""
    best = choice.topk(K0, dim=1).indices.tolist()
    return [mine[: K0 if row % per_request == 0 else draft_k0] for row, mine in enumerate(best)]


def recounted(
    choice: torch.Tensor, row: int, floors: list[list[int]], step: dict[str, Any]
) -> list[int]:
    """The experts of a row, in plain words: its best of those that are its own floor, or that of a
    row no deeper than itself in a chain, of a token or of a guess that it follows in a tree."""
    each = step["per_request"]
    depth = 0 if step["tree"] else row % each
    seen = [row, *(other for other in range(len(choice)) if other % each <= depth)]
    if step["tree"]:
        seen += leading_to(step, row)
    pool = {expert for other in seen for expert in floors[other]}
    return sorted(pool, key=lambda expert: (-float(choice[row, expert]), expert))[:K]


def check_routed(found: Answers, width: int, *, is_tree: bool = False, draft_k0: int = K0) -> None:
    """Each verified row against a recount, what was counted against the rows. The layer that drafts
    is in neither."""
    together = [step for step in found.routed if step["batch"] > step["per_request"]]
    assert len(together) >= min(found.verified) > 3
    for step in found.routed:
        rows, each = step["batch"], step["per_request"]
        assert (each, step["tree"], rows % each) == (width, is_tree, 0)
        assert len(step["layers"]) == (LAYERS if rows > each else 0)  # a lone request is vanilla
        for (logits, ids, weights), bias in zip(step["layers"], biases(), strict=False):
            scores = logits.sigmoid()
            floors = floors_of(scores + bias, each, draft_k0)
            for row in range(rows):
                mine = recounted(scores + bias, row, floors, step)
                assert ids[row][weights[row] > 0].tolist() == mine
                expected = scores[row][mine] / scores[row][mine].sum()
                torch.testing.assert_close(weights[row, : len(mine)], expected)
    alone = len(found.routed) - len(together)
    rows = sum(step["batch"] for step in found.routed)
    assert found.gained["oea_routed_tokens_total"] == rows * LAYERS
    assert found.gained["oea_unique_experts_count"] == len(found.routed) * LAYERS
    assert found.gained["oea_decode_requests_total"] == rows / width
    assert found.bypassed.keys() <= {"prefill", "schedule"}
    assert found.bypassed.get("schedule", 0) == alone
    assert found.bypassed["prefill"] <= PROMPTS  # one, if all have arrived by then
    check_rejected(
        found, lambda logits, place: floors_of(logits.sigmoid() + biases()[place], width, draft_k0)
    )


def test_each_row_takes_what_it_may_see_and_the_layer_that_drafts_is_counted_nowhere(
    server: Server, steps: Path
) -> None:
    found = answers(server, asked(), steps)
    check_routed(found, width=2)
    # its guesses are accepted about as often as it agrees with the model
    assert all(NEW_TOKENS / verified > 1.2 for verified in found.verified)


def test_drafts_can_be_guaranteed_less_than_tokens(server: Server, steps: Path) -> None:
    whole = answers(server, asked())
    try:
        server.steer(draft_k0=1)
        found = answers(server, asked(), steps)
    finally:
        server.steer(draft_k0=None)
    check_routed(found, width=2, draft_k0=1)
    read = [
        each.gained["oea_unique_experts_sum"] / each.gained["oea_unique_experts_count"]
        for each in (found, whole)
    ]
    assert read[0] < read[1]


def test_at_k0_of_k_the_tokens_are_those_without_speculation(
    server: Server, vanilla: Answers
) -> None:
    """Those that transformers draws from the model, one at a time."""
    try:
        server.steer(k0=str(K))
        routed = answers(server, asked())
    finally:
        server.steer(k0=str(K0))
    assert (routed.ids, routed.verified) == (vanilla.ids, vanilla.verified)
    assert routed.ids == without_sglang()


def test_a_lone_request_is_vanilla_and_no_pass_of_the_layer_that_drafts_is_a_bypass(
    server: Server,
) -> None:
    found = answers(server, asked(1))
    assert found.bypassed == {"prefill": 1, "schedule": found.verified[0]}
    assert found.gained["oea_decode_requests_total"] == found.verified[0]


def without_sglang() -> list[list[int]]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(GLM4_MOE)
    network = AutoModelForCausalLM.from_pretrained(GLM4_MOE, dtype=torch.float32)
    found = []
    for text in asked()["text"]:
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        whole = network.generate(
            ids,
            do_sample=False,
            max_new_tokens=NEW_TOKENS,
            min_new_tokens=NEW_TOKENS,
            eos_token_id=-1,
            pad_token_id=0,
        )
        found.append(whole[0, ids.shape[1] :].tolist())
    return found


@pytest.mark.nightly
def test_more_drafts_and_a_tree_of_them(server: Server, steps: Path, vanilla: Answers) -> None:
    """Three after one another, then two branches each of two, of which the best five are
    verified."""
    server.stop()
    for flags, width in ((chain(3), 4), (tree(topk=2, steps=2, width=5), 5)):
        with start(GLM4_MOE, *flags, *OURS, environment={"ROUTED_FOLDER": str(steps)}) as deeper:
            check_routed(answers(deeper, asked(), steps), width=width, is_tree=width == 5)
            deeper.steer(policy="vanilla")
            more = answers(deeper, asked())
        assert more.ids == vanilla.ids
        assert sum(more.verified) < sum(vanilla.verified)


@pytest.mark.nightly
def test_vanilla_is_sglang_without_us_with_speculation_and_without(
    server: Server, vanilla: Answers
) -> None:
    server.stop()
    cpu = {"SGLANG_PLUGINS": "oea_cpu"}
    with start(GLM4_MOE, *chain(1), environment=cpu, command=SGLANG) as plain:
        assert generated(plain, asked()) == (vanilla.ids, vanilla.verified)
    with start(GLM4_MOE, environment=cpu, command=SGLANG) as undrafted:
        assert generated(undrafted, asked()) == (vanilla.ids, [0] * PROMPTS)
