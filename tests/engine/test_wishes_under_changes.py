"""A thousand requests of random wishes on two ranks, while knobs change: each got its promise,
recounted.

What each layer was given and made of it is written down by every rank, with the ids of the requests
as SGLang's batch has them; what experts a request's tokens took, SGLang's own routing replay says.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import requests
import torch
from oea_server_demo import MODEL

from oea_server.client.server import Server
from tests.engine.patched import IS_PATCHED, patched_copy
from tests.engine.recount import replay_of
from tests.servers import COMMON, LAYERS, PLUGIN, SETTLE, TWO_RANKS, K
from tests.transcript import REPLAY

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.launch,
    pytest.mark.skipif(
        IS_PATCHED or not REPLAY,
        reason="it starts both kinds itself; 0.5.17 has no replay on a CPU",
    ),
]

REQUESTS, STREAMS, PAUSE = 1000, 16, 0.3
CHANGES: tuple[dict[str, Any], ...] = (
    {
        "policy": "oea",
        "k0": "2",
        "share": "0",
        "mix": "1",
        "max_rank": None,
        "pool": "union",
        "min_batch": 2,
    },
    {"k0": "3", "mix": "0.3", "pool": "fill"},
    {"k0": "8", "share": "0.2", "mix": "0"},
    {"share": "0", "k0": "5", "p": 0.6},
    {"p": 1, "k0": "1:8,4:4,12:2", "max_rank": 9},
    {"policy": "vanilla"},
    {"policy": "pruned"},
    {"policy": "random"},
    {"policy": "oea", "min_batch": 12},
)


class Sent(NamedTuple):
    wish: dict[str, Any] | None
    status: int
    answer: Any


class Run(NamedTuple):
    sent: dict[str, Sent]
    """By id."""
    steps: list[list[dict[str, Any]]]
    """Each rank's own record."""
    changes: int


@pytest.fixture(scope="module", params=["hooks", "patched"])
def ran(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    steps = tmp_path_factory.mktemp("steps")
    path = [
        str(PLUGIN),
        *(
            [str(patched_copy(tmp_path_factory.mktemp("sglang")))]
            if request.param == "patched"
            else []
        ),
    ]
    environment = {
        "ROUTED_FOLDER": str(steps),
        "PYTHONPATH": os.pathsep.join([*path, os.environ.get("PYTHONPATH", "")]),
    }
    flags = ("--model-path", str(MODEL), "--served-model-name", "demo", *COMMON, *TWO_RANKS)
    server = Server(*flags, environment=environment)
    server.settle = SETTLE
    with server:
        assert server.config()["model"]["top_k"] == K
        for file in steps.iterdir():
            file.unlink()
        yield run(server, steps)


def run(server: Server, steps: Path) -> Run:
    done: list[bool] = []
    dice = random.Random(0)
    wishes = [
        dice.choice([None, {"exact": True}, {"k0": dice.randint(1, K)}]) for _ in range(REQUESTS)
    ]
    with ThreadPoolExecutor(1) as hand, ThreadPoolExecutor(STREAMS) as pool:
        turned = hand.submit(turn, server, done)
        answers = pool.map(lambda i: send(server, i, wishes[i]), range(REQUESTS))
        sent = {f"w{i}": Sent(wishes[i], *answer) for i, answer in enumerate(answers)}
        done.append(True)
        changes = turned.result()
    server.settled_metrics()
    by_rank: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for file in sorted(steps.iterdir()):
        by_rank[file.stem.split("-")[1]].append(torch.load(file))
    return Run(sent, list(by_rank.values()), changes)


def turn(server: Server, done: list[bool]) -> int:
    changes = 0
    while not done:
        server.steer(**CHANGES[changes % len(CHANGES)])
        changes += 1
        time.sleep(PAUSE)
    return changes


def send(server: Server, i: int, wish: dict[str, Any] | None) -> tuple[int, Any]:
    dice = random.Random(i)
    sampling: dict[str, Any] = {
        "temperature": dice.choice([0, 1]),
        "max_new_tokens": dice.randint(2, 24),
    }
    reply = requests.post(
        f"{server.url}/generate",
        json={
            "input_ids": [dice.randint(100, 900) for _ in range(dice.randint(3, 30))],
            "sampling_params": {
                **sampling,
                "ignore_eos": True,
                "custom_params": wish and {"oea": wish},
            },
            "rid": f"w{i}",
            "return_routed_experts": True,
        },
        timeout=300,
    )
    return reply.status_code, reply.json()


def test_what_was_asked_was_served_or_refused_for_the_floor(ran: Run) -> None:
    statuses = Counter(each.status for each in ran.sent.values())
    assert set(statuses) == {200, 400}
    assert statuses[200] > REQUESTS / 2
    assert ran.changes > 3 * len(CHANGES)
    for each in ran.sent.values():
        if each.status == 400:
            assert each.wish is not None
            assert f"k0: {each.wish['k0']} is below" in each.answer["error"]["message"]


def test_each_row_got_its_promise_in_each_layer(ran: Run) -> None:
    """From the logits that the layer had: its own top k0 at least, or its own top k with their own
    weights."""
    kept: Counter[str] = Counter()
    for step in ran.steps[0]:
        for row, rid in enumerate(step["rids"]):
            wish = ran.sent[rid].wish or {}
            for logits, ids, weights in step["layers"]:
                best = logits[row].softmax(0).topk(K)
                taken = ids[row][weights[row] > 0].tolist()
                if wish.get("exact"):
                    assert ids[row].tolist() == best.indices.tolist()
                    expected = best.values / best.values.sum()
                    torch.testing.assert_close(weights[row], expected, rtol=0, atol=1e-6)
                    kept["exact"] += 1
                elif "k0" in wish:
                    assert set(best.indices[: wish["k0"]].tolist()) <= set(taken)
                    kept["k0"] += 1
                else:
                    kept["none"] += 1
    assert min(kept[name] for name in ("exact", "k0", "none")) > 1000


def test_what_sglang_replays_is_what_was_recounted(ran: Run) -> None:
    """So the recount was of the rows of these requests."""
    seen: dict[str, list[list[set[int]]]] = defaultdict(list)
    for step in ran.steps[0]:
        for row, rid in enumerate(step["rids"]):
            seen[rid].append([set(ids[row].tolist()) for _, ids, _ in step["layers"]])
    compared = 0
    for rid, each in ran.sent.items():
        if each.status != 200:
            continue
        meta = each.answer["meta_info"]
        decodes = meta["completion_tokens"] - 1
        replay = replay_of(meta, LAYERS, K)[-decodes:]
        assert len(replay) == decodes <= len(seen[rid])
        for theirs, ours in zip(replay, seen[rid], strict=False):
            if ours:  # not a vanilla step, which SGLang routes itself
                assert [set(layer) for layer in theirs.tolist()] == ours
                compared += 1
    assert compared > REQUESTS


def test_both_ranks_made_the_same_of_it(ran: Run) -> None:
    one, other = ran.steps
    assert len(one) == len(other)
    for mine, theirs in zip(one, other, strict=True):
        assert mine["rids"] == theirs["rids"]
        assert len(mine["layers"]) == len(theirs["layers"])
        for (_, ids, weights), (_, their_ids, their_weights) in zip(
            mine["layers"], theirs["layers"], strict=True
        ):
            assert np.array_equal(ids, their_ids)
            assert np.array_equal(weights, their_weights)
