"""DP attention served for real on two ranks: each has a batch of its own, and all rows are routed
as one step."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import requests

from oea_server.client.ask import ask
from oea_server.client.server import Server
from tests.engine.recount import replay_of
from tests.servers import LAYERS, K, Servers, on
from tests.transcript import EXTRA_STEPS, PROMPTS

pytestmark = [
    pytest.mark.skipif(
        EXTRA_STEPS > 0, reason="SGLang 0.5.17 pins memory for DP attention, whatever it runs on"
    ),
]
KINDS = [
    on("k3-dp2"),
    pytest.param(
        "patched-k3-dp2", marks=[pytest.mark.server("patched-k3-dp2"), pytest.mark.nightly]
    ),
]
TOKENS = 17
"""Of each answer; the first comes from the prefill."""


@pytest.fixture(params=KINDS)
def server(request: pytest.FixtureRequest, servers: Servers) -> Server:
    return servers.get(request.param)


@pytest.fixture
def steps(servers: Servers) -> Any:
    """What each rank has written down since it was last asked."""
    files = sorted(servers.records.glob("*.jsonl"))
    starts = {path: path.stat().st_size for path in files}

    def read() -> list[list[dict[str, Any]]]:
        found = []
        for path in sorted(servers.records.glob("*.jsonl")):
            lines = path.read_bytes()[starts.get(path, 0) :]
            starts[path] = starts.get(path, 0) + len(lines)
            found.append([json.loads(line) for line in lines.splitlines()])
        return [each for each in found if each]

    return read


def generate(
    server: Server, prompts: list[list[int]], tokens: int = TOKENS, exact: int | None = None
) -> list[dict[str, Any]]:
    sampling = {"temperature": 0, "max_new_tokens": tokens, "ignore_eos": True}
    wish = {"custom_params": {"oea": {"exact": True}}}
    body: dict[str, Any] = {
        "input_ids": prompts,
        "sampling_params": [
            {**sampling, **(wish if i == exact else {})} for i in range(len(prompts))
        ],
        "return_routed_experts": True,
    }
    reply = requests.post(f"{server.url}/generate", json=body, timeout=300)
    assert reply.status_code == 200, reply.text
    return list(reply.json())


def prompts(n: int) -> list[list[int]]:
    return [[100 + 7 * i + j for j in range(12)] for i in range(n)]


def fresh(server: Server) -> dict[str, float]:
    ask("POST", f"{server.url}/flush_cache", server.key).raise_for_status()
    return server.settled_metrics()


@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_all_rows_are_one_step_on_both_ranks(server: Server, steps: Any, n: int) -> None:
    """Idle ranks, equal and unequal ones; the metrics are a recount of SGLang's own routing replay.

    Again if a request came later than the others: where one rank prefills, none routes.
    """
    for _ in range(10):
        before = fresh(server)
        answers = generate(server, prompts(n))
        gained = {
            name: value - before.get(name, 0) for name, value in server.settled_metrics().items()
        }
        one, other = steps()
        assert one == other
        assert all(layer[3] is True for step in one for layer in step["layers"])
        assert {len(step["layers"]) for step in one} == {LAYERS}
        assert all(sum(step["of_ranks"]) == step["batch"] for step in one)
        assert (
            gained["oea_decode_batch_size_sum"]
            == sum(step["batch"] for step in one)
            <= n * (TOKENS - 1)
        )
        if gained["oea_decode_batch_size_sum"] == n * (TOKENS - 1):
            break
    else:
        raise AssertionError("the requests never came together")
    assert max(min(step["of_ranks"]) for step in one) == (n // 2 if n > 1 else 0)
    decoded = np.stack(
        [replay_of(each["meta_info"], LAYERS, K)[-(TOKENS - 1) :] for each in answers]
    )
    taken = [len(set(row)) for row in decoded.reshape(-1, K).tolist()]
    assert gained["oea_routed_tokens_total"] == len(taken)
    assert gained["oea_assignments_total"] == sum(taken)
    # the ranks' requests came together: each step can be recounted
    if len({step["batch"] for step in one}) == 1:
        pools = [
            set(ids)
            for ids in decoded.transpose(1, 2, 0, 3).reshape((TOKENS - 1) * LAYERS, -1).tolist()
        ]
        assert gained["oea_unique_experts_count"] == len(pools)
        assert gained["oea_unique_experts_sum"] == sum(map(len, pools))
    if n == 1:
        assert set(taken) == {3}


def test_an_exact_request_answers_as_vanilla_does_whichever_rank_has_it(
    server: Server, steps: Any
) -> None:
    def experts(answer: dict[str, Any]) -> np.ndarray:
        return np.sort(replay_of(answer["meta_info"], LAYERS, K)[-(TOKENS - 1) :], axis=2)

    try:
        for exact in (4, 5):  # requests go to the ranks in turn
            server.steer(policy="oea")
            steps()
            routed = generate(server, prompts(8), exact=exact)
            one, other = steps()
            assert one == other
            assert all(layer[3] is True for step in one for layer in step["layers"])
            server.steer(policy="vanilla")
            vanilla = generate(server, prompts(8))
            assert routed[exact]["output_ids"] == vanilla[exact]["output_ids"]
            assert (experts(routed[exact]) == experts(vanilla[exact])).all()
            assert any(
                (experts(mine) != experts(theirs)).any()
                for mine, theirs in zip(routed, vanilla, strict=True)
            )
    finally:
        server.steer(policy="oea")


@pytest.mark.server("k3-dp2")
def test_greedy_answers_agree_with_vanilla_as_well_as_on_ranks_that_share_a_batch(
    servers: Servers,
) -> None:
    """Were ranks to choose differently, experts would be missing from the sum or double in it:
    garbage."""
    server = servers.get("k3-dp2")
    asked = [*PROMPTS, "The file system is", "A list of names and", "To open a file, use"]
    said: dict[str, list[list[int]]] = {}
    try:
        for policy, k0 in (("vanilla", 8), ("oea", 8), ("oea", 7)):
            server.steer(policy=policy, k0=k0)
            with ThreadPoolExecutor(len(asked)) as pool:
                said[f"{policy} {k0}"] = list(pool.map(lambda text: greedy(server, text), asked))
    finally:
        server.steer(policy="oea", k0=3)
    assert said["oea 8"] == said["vanilla 8"]  # all k experts are guaranteed: the model's own top k
    alike = sum(one == other for one, other in zip(said["oea 7"], said["vanilla 8"], strict=True))
    assert alike >= len(asked) - 2, said


def greedy(server: Server, text: str) -> list[int]:
    sampling = {"temperature": 0, "max_new_tokens": 32, "ignore_eos": True}
    reply = requests.post(
        f"{server.url}/generate", json={"text": text, "sampling_params": sampling}, timeout=300
    )
    assert reply.status_code == 200, reply.text
    ids: list[int] = reply.json()["output_ids"]
    return ids


@pytest.mark.server("k3-dp2")
def test_changes_fall_between_the_same_two_steps_of_both_ranks(
    servers: Servers, steps: Any
) -> None:
    """Under load, in any mixture of prefills, unequal batches and idle ranks."""
    server = servers.get("k3-dp2")
    stop: list[bool] = []
    before, changes = fresh(server), 40

    def ask_on(i: int) -> int:
        answered = 0
        while not stop:
            generate(server, prompts(1 + (i + answered) % 3), 5 + 7 * (i % 4))
            answered += 1
        return answered

    generate(server, prompts(1))  # whether a rank is idle among the streams is chance
    with ThreadPoolExecutor(6) as pool:
        streams = [pool.submit(ask_on, i) for i in range(6)]
        try:
            for i in range(changes):
                server.steer(
                    policy=("oea", "vanilla", "oea", "pruned", "shadow")[i % 5], k0=1 + i % 8
                )
                assert server.config()["ranks_agree"]
                time.sleep(0.05)
        finally:
            stop.append(True)
            server.steer(policy="oea", k0=3)
    assert all(each.result() for each in streams)
    gained = {name: value - before.get(name, 0) for name, value in server.settled_metrics().items()}
    one, other = steps()
    assert one == other
    assert all(len({layer[1] for layer in step["layers"]}) == 1 for step in one)
    assert all(layer[3] is True for step in one for layer in step["layers"] if len(layer) > 3)
    assert len({step["layers"][0][1] for step in one}) > 8
    assert len({min(step["of_ranks"]) == 0 for step in one}) == 2
    assert gained["oea_config_changes_total"] == changes + 1
    assert gained["oea_decode_batch_size_sum"] == sum(step["batch"] for step in one)
