"""Speculative decoding on a real server (NGRAM, whose drafts are trees): what is routed, counted
and answered."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from oea_server_demo import MODEL

from oea_server.client.ask import ask
from oea_server.client.server import SGLANG, Server
from oea_server.routing import Policy, route, trees
from tests.documents.asking import all_of
from tests.documents.checkout import laid_out
from tests.documents.ledger import DRAFTS
from tests.engine.patched import IS_PATCHED
from tests.engine.speculating import SAMPLING, answers, check_rejected, generated, leading_to, start
from tests.servers import LAYERS, K
from tests.transcript import REPLAY

pytestmark = [
    pytest.mark.launch,
    pytest.mark.skipif(
        IS_PATCHED or not REPLAY, reason="served once; the CPU platform has stand-ins for 0.5.23"
    ),
]
K0, WIDTH, PROMPTS = 2, 5, 4
RID = "prompt-"
NGRAM = ("--speculative-algorithm", "NGRAM", "--speculative-num-draft-tokens", str(WIDTH))


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("steps")


@pytest.fixture(scope="module")
def server(steps: Path) -> Iterator[Server]:
    ours = (
        "--oea-k0",
        str(K0),
        "--oea-min-batch",
        "2",
        "--oea-pool",
        "union",
        "--oea-policy",
        "oea",
    )
    with start(MODEL, *NGRAM, *ours, environment={"ROUTED_FOLDER": str(steps)}) as running:
        yield running


def asked(prompts: int = PROMPTS, exact: int | None = None) -> dict[str, Any]:
    """Prompts of one length, one of which may wish to be routed exactly."""
    wish = {"custom_params": {"oea": {"exact": True}}}
    return {
        "input_ids": [[100 + 7 * i + j for j in range(12)] for i in range(prompts)],
        "sampling_params": [{**SAMPLING, **(wish if i == exact else {})} for i in range(prompts)],
        "rid": [f"{RID}{i}" for i in range(prompts)],
    }


def recounted(logits: torch.Tensor, row: int, step: dict[str, Any]) -> list[int]:
    """The experts of a row in a tree, in plain words: its best of those that are its own floor, a
    token's, or that of a guess which it follows."""
    tokens = [other for other in range(len(logits)) if other % step["per_request"] == 0]
    floors = logits.topk(K0, dim=1).indices
    pool = {
        int(expert) for other in (*tokens, *leading_to(step, row), row) for expert in floors[other]
    }
    return sorted(pool, key=lambda expert: (-float(logits[row, expert]), expert))[:K]


def test_each_row_takes_what_it_may_see_and_all_are_counted(server: Server, steps: Path) -> None:
    found = answers(server, asked(), steps)
    together = [step for step in found.routed if step["batch"] > step["per_request"]]
    assert len(together) >= min(found.verified) > 3
    unique = 0
    for step in found.routed:
        rows, each = step["batch"], step["per_request"]
        assert (each, step["tree"], rows % each) == (WIDTH, True, 0)
        assert len(step["layers"]) == (LAYERS if rows > each else 0)  # a lone request is vanilla
        for logits, ids, weights in step["layers"]:
            awake = set()
            for row in range(rows):
                mine = recounted(logits, row, step)
                assert ids[row][weights[row] > 0].tolist() == mine
                scores = logits[row].softmax(0)[mine]
                torch.testing.assert_close(weights[row, : len(mine)], scores / scores.sum())
                awake.update(logits[row].topk(K0).indices.tolist())
            unique += len(awake)
    alone = [step for step in found.routed if step["batch"] == step["per_request"]]
    assert (
        found.gained["oea_routed_tokens_total"]
        == sum(step["batch"] for step in found.routed) * LAYERS
    )
    assert found.gained["oea_unique_experts_count"] == len(found.routed) * LAYERS
    assert (
        found.gained["oea_decode_requests_total"]
        == sum(step["batch"] for step in found.routed) / WIDTH
    )
    assert found.gained["oea_decode_batch_size_sum"] == sum(step["batch"] for step in found.routed)
    if not alone:
        assert (
            found.gained["oea_unique_experts_sum"]
            == unique
            < found.gained["oea_vanilla_unique_experts_sum"]
        )
    assert found.bypassed == {"prefill": 1} | ({"schedule": len(alone)} if alone else {})
    check_rejected(found, lambda logits, _: logits.topk(K0, dim=1).indices.tolist())


def test_at_k0_of_k_the_tokens_are_vanillas_and_so_is_what_is_accepted(server: Server) -> None:
    try:
        server.steer(k0=str(K))
        routed = answers(server, asked())
        server.steer(policy="vanilla")
        vanilla = answers(server, asked())
    finally:
        server.steer(policy="oea", k0=str(K0))
    assert routed.ids == vanilla.ids
    assert routed.verified == vanilla.verified
    assert vanilla.bypassed.keys() == {"prefill", "policy"}


def test_all_rows_of_an_exact_request_are_vanillas_and_its_neighbours_lose_nothing(
    server: Server, steps: Path
) -> None:
    """Drafts that are verified among them: recounted from what each layer was given, and what it
    made of it."""
    found, mine = answers(server, asked(exact=1), steps), f"{RID}1"
    together = [step for step in found.routed if step["layers"] and mine in step["rids"]]
    assert len(together) > 3
    for step in together:
        first = step["rids"].index(mine) * WIDTH
        depths = torch.zeros(step["batch"], dtype=torch.int64)
        child, sibling = map(torch.tensor, step["links"])
        trees.write(child, sibling, depths)
        for logits, ids, weights in step["layers"]:
            own = logits.softmax(1).topk(K, dim=1)
            rows = slice(first, first + WIDTH)
            assert torch.equal(ids[rows], own.indices[rows].int())
            expected = own.values / own.values.sum(dim=1, keepdim=True)
            torch.testing.assert_close(weights[rows], expected[rows], rtol=0, atol=1e-6)
            without = route(logits, Policy.oea(K0), k=K, drafts=depths)
            taken, before = (
                (logits.softmax(1).gather(1, one.long()) * (by > 0)).sum(dim=1)
                for one, by in ((ids, weights), (without.ids, without.weights))
            )
            assert (taken >= before - 1e-6).all()
    try:
        server.steer(policy="vanilla")
        assert answers(server, asked()).ids[1] == found.ids[1]
    finally:
        server.steer(policy="oea")


def test_a_lone_request_is_vanilla_however_many_rows_it_has(server: Server) -> None:
    routed = answers(server, asked(1))
    try:
        server.steer(policy="vanilla")
        assert answers(server, asked(1)).ids == routed.ids
    finally:
        server.steer(policy="oea")
    assert routed.bypassed == {"prefill": 1, "schedule": routed.verified[0]}


@pytest.mark.nightly
def test_vanilla_is_sglang_without_us(server: Server) -> None:
    server.steer(policy="vanilla")
    try:
        ours = answers(server, asked())
    finally:
        server.steer(policy="oea")
    server.stop()
    with start(MODEL, *NGRAM, environment={"SGLANG_PLUGINS": "oea_cpu"}, command=SGLANG) as plain:
        # what its warm-up has taught the drafts
        ask("POST", f"{plain.url}/flush_cache").raise_for_status()
        assert generated(plain, asked()) == (ours.ids, ours.verified)


@pytest.mark.nightly  # a minute, most of it beside other tests
def test_the_commands_of_the_page_on_drafts_do_what_it_says(server: Server, tmp_path: Path) -> None:
    assert all_of(DRAFTS, server, laid_out(tmp_path)) == 2
