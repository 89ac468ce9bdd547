"""Speculative decoding on a real server (NGRAM, whose drafts are trees): what is routed, counted and answered."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from oea_server_demo import MODEL
from typer.testing import CliRunner

from oea_server.cli import app
from oea_server.client.ask import ask
from oea_server.client.remote import Remote
from oea_server.client.server import SGLANG, Server
from oea_server.engine import drafts
from oea_server.engine.drafts import Drafts
from oea_server.routing import Policy, route
from tests.engine.patched import IS_PATCHED
from tests.servers import COMMON, LAYERS, PLUGIN, SETTLE, K
from tests.transcript import REPLAY

pytestmark = [
    pytest.mark.launch,
    pytest.mark.skipif(IS_PATCHED or not REPLAY, reason="served once; the CPU platform has stand-ins for 0.5.23"),
]
K0, WIDTH, PROMPTS, NEW_TOKENS = 2, 5, 4, 32
RID = "prompt-"
NGRAM = ("--speculative-algorithm", "NGRAM", "--speculative-num-draft-tokens", str(WIDTH), "--disable-radix-cache")


def start(*flags: str, **given: Any) -> Server:
    environment = {
        **given.pop("environment", {}),
        "PYTHONPATH": os.pathsep.join([str(PLUGIN), os.environ.get("PYTHONPATH", "")]),
    }
    model = ("--model-path", str(MODEL), "--served-model-name", "demo", "--enable-metrics")
    server = Server(*model, *COMMON, *NGRAM, *flags, environment=environment, **given)
    server.settle = SETTLE
    return server


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("steps")


@pytest.fixture(scope="module")
def server(steps: Path) -> Iterator[Server]:
    ours = ("--oea-k0", str(K0), "--oea-min-batch", "2", "--oea-pool", "union", "--oea-policy", "oea")
    with start(*ours, environment={"ROUTED_FOLDER": str(steps)}) as running:
        yield running


@dataclass(frozen=True)
class Answers:
    ids: list[list[int]]
    verified: list[int]
    """Verify passes of each prompt."""
    gained: dict[str, float]
    bypassed: dict[str, int]
    routed: list[dict[str, Any]]
    """What each counted step has routed, layer by layer."""


def answers(server: Server, steps: Path | None = None, prompts: int = PROMPTS, exact: int | None = None) -> Answers:
    """Greedy prompts in one request, with nothing cached before."""
    ask("POST", f"{server.url}/flush_cache", server.key).raise_for_status()
    before, passed = server.settled_metrics(), server.stats()["bypassed"]
    for file in steps.iterdir() if steps else ():
        file.unlink()
    sampling = {"temperature": 0, "max_new_tokens": NEW_TOKENS, "ignore_eos": True}
    wish = {"custom_params": {"oea": {"exact": True}}}
    each = [{**sampling, **(wish if i == exact else {})} for i in range(prompts)]
    ids = [[100 + 7 * i + j for j in range(12)] for i in range(prompts)]
    asked = {"input_ids": ids, "sampling_params": each, "rid": [f"{RID}{i}" for i in range(prompts)]}
    found = ask("POST", f"{server.url}/generate", json=asked, timeout=300).json()
    after, later = server.settled_metrics(), server.stats()["bypassed"]
    return Answers(
        [each["output_ids"] for each in found],
        [each["meta_info"]["spec_verify_ct"] for each in found],
        {name: after[name] - before.get(name, 0) for name in after},
        {why: times - passed.get(why, 0) for why, times in later.items() if times != passed.get(why, 0)},
        [torch.load(file) for file in sorted(steps.iterdir())] if steps else [],
    )


def recounted(logits: torch.Tensor, row: int, per_request: int) -> list[int]:
    """The experts of a row in a tree: its best of those that are its own floor, or a token's, in plain words."""
    tokens = [other for other in range(len(logits)) if other % per_request == 0]
    floors = logits.topk(K0, dim=1).indices
    pool = {int(expert) for other in (*tokens, row) for expert in floors[other]}
    return sorted(pool, key=lambda expert: (-float(logits[row, expert]), expert))[:K]


def test_each_row_takes_what_it_may_see_and_all_are_counted(server: Server, steps: Path) -> None:
    found = answers(server, steps)
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
                mine = recounted(logits, row, each)
                assert ids[row][weights[row] > 0].tolist() == mine
                scores = logits[row].softmax(0)[mine]
                torch.testing.assert_close(weights[row, : len(mine)], scores / scores.sum())
                awake.update(logits[row].topk(K0).indices.tolist())
            unique += len(awake)
    alone = [step for step in found.routed if step["batch"] == step["per_request"]]
    assert found.gained["oea_routed_tokens_total"] == sum(step["batch"] for step in found.routed) * LAYERS
    assert found.gained["oea_unique_experts_count"] == len(found.routed) * LAYERS
    assert found.gained["oea_decode_requests_total"] == sum(step["batch"] for step in found.routed) / WIDTH
    assert found.gained["oea_decode_batch_size_sum"] == sum(step["batch"] for step in found.routed)
    if not alone:
        assert found.gained["oea_unique_experts_sum"] == unique < found.gained["oea_vanilla_unique_experts_sum"]
    assert found.bypassed == {"prefill": 1} | ({"schedule": len(alone)} if alone else {})


def test_at_k0_of_k_the_tokens_are_vanillas_and_so_is_what_is_accepted(server: Server) -> None:
    try:
        server.steer(k0=str(K))
        routed = answers(server)
        server.steer(policy="vanilla")
        vanilla = answers(server)
    finally:
        server.steer(policy="oea", k0=str(K0))
    assert routed.ids == vanilla.ids
    assert routed.verified == vanilla.verified
    assert vanilla.bypassed.keys() == {"prefill", "policy"}


def test_all_rows_of_an_exact_request_are_vanillas_and_its_neighbours_lose_nothing(server: Server, steps: Path) -> None:
    """Drafts that are verified among them: recounted from what each layer was given, and what it made of it."""
    found, mine = answers(server, steps, exact=1), f"{RID}1"
    together = [step for step in found.routed if step["layers"] and mine in step["rids"]]
    assert len(together) > 3
    for step in together:
        first = step["rids"].index(mine) * WIDTH
        depths = drafts.depths(step["batch"], Drafts(WIDTH, tree=True), torch.device("cpu"))
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
        assert answers(server).ids[1] == found.ids[1]
    finally:
        server.steer(policy="oea")


def test_a_lone_request_is_vanilla_however_many_rows_it_has(server: Server) -> None:
    routed = answers(server, prompts=1)
    try:
        server.steer(policy="vanilla")
        assert answers(server, prompts=1).ids == routed.ids
    finally:
        server.steer(policy="oea")
    assert routed.bypassed == {"prefill": 1, "schedule": routed.verified[0]}


@pytest.mark.nightly
def test_its_drafts_are_measured(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Remote, "settle", SETTLE)
    flags = ["--speculative", "--batch", "1,4", "--policies", "vanilla,oea:2", "--tokens", "32", "--repeats", "3"]
    done = CliRunner().invoke(app, ["bench", "serve", "--url", server.url, *flags, "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    (path,) = tmp_path.glob("serve-*-speculative.json")
    record = json.loads(path.read_text())
    assert record["drafts"] == {"algorithm": "NGRAM", "rows_per_request": WIDTH}
    rows = {(row["policy"], row["batch"]): row for row in record["rows"]}
    assert len(rows) == 4
    for (_, batch), row in rows.items():
        assert 1 <= row["accept_length"] <= WIDTH
        assert WIDTH <= row["tokens_in_a_step"] <= WIDTH * batch
    assert rows["oea:2", 1]["accept_length"] == rows["vanilla", 1]["accept_length"]  # a lone request is vanilla
    assert rows["oea:2", 4]["unique_experts"] < rows["vanilla", 4]["unique_experts"]


@pytest.mark.nightly
def test_vanilla_is_sglang_without_us(server: Server) -> None:
    server.steer(policy="vanilla")
    try:
        ours = answers(server)
    finally:
        server.steer(policy="oea")
    server.stop()
    with start(environment={"SGLANG_PLUGINS": "oea_cpu"}, command=SGLANG) as plain:
        asked = {
            "input_ids": [[100 + 7 * i + j for j in range(12)] for i in range(PROMPTS)],
            "sampling_params": {"temperature": 0, "max_new_tokens": NEW_TOKENS, "ignore_eos": True},
        }
        ask("POST", f"{plain.url}/flush_cache").raise_for_status()  # what its warm-up has taught the drafts
        found = ask("POST", f"{plain.url}/generate", json=asked, timeout=300).json()
    assert [each["output_ids"] for each in found] == ours.ids
    assert [each["meta_info"]["spec_verify_ct"] for each in found] == ours.verified
