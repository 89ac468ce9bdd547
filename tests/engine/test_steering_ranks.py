"""200 changes while 16 chats stream from two ranks: nothing lost, nothing torn."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from oea_server.demo.server import Server
from tests.engine.conftest import KINDS, LAYERS, Servers

CHANGES, STREAMS = 200, 16


def stream(server: Server, i: int, stop: list[bool]) -> int:
    """Chats one after the other until told to stop; how many tokens came."""
    tokens = 0
    while not stop:
        chunks = server.client.chat.completions.create(
            model="demo",
            messages=[{"role": "user", "content": f"{i}: go on"}],
            max_tokens=48,
            temperature=1.0,
            stream=True,
            stream_options={"include_usage": True},
            extra_body={"ignore_eos": True},
        )
        usage = [chunk.usage for chunk in chunks if chunk.usage is not None]
        assert usage[-1].completion_tokens == 48
        tokens += 48
    return tokens


@pytest.fixture(scope="module")
def recorded(servers: Servers) -> tuple[list[dict[str, Any]], list[list[dict[str, Any]]]]:
    """The answers to the changes, and every rank's own record of its steps."""
    server = servers.get("recorded-ep2")
    folder = Path(KINDS["recorded-ep2"][1]["RECORDER_FOLDER"])
    stop: list[bool] = []
    answers = []
    with ThreadPoolExecutor(STREAMS) as pool:
        streams = [pool.submit(stream, server, i, stop) for i in range(STREAMS)]
        try:
            for i in range(CHANGES):
                server.steer(policy=("oea", "vanilla", "oea", "pruned", "shadow")[i % 5], k0=1 + i % 8)
                answers.append(server.config())
                time.sleep(0.05)
        finally:
            stop.append(True)
    assert all(each.result() > 0 for each in streams)
    server.settled_metrics()
    ranks = [[json.loads(line) for line in path.read_text().splitlines()] for path in sorted(folder.glob("*.jsonl"))]
    return answers, ranks


def test_every_change_was_taken_in_turn(recorded: Any) -> None:
    answers, _ = recorded
    versions = [each["version"] for each in answers]
    assert versions == list(range(versions[0], versions[0] + CHANGES))
    for i, each in enumerate(answers):
        assert each["settings"]["k0"] == str(1 + i % 8)


def test_every_step_used_one_configuration_the_same_on_both_ranks(recorded: Any) -> None:
    _, ranks = recorded
    assert len(ranks) == 2
    assert ranks[0] == ranks[1]
    for step in ranks[0]:
        assert len(step["layers"]) == LAYERS
        assert len({policy for _, policy, _ in step["layers"]}) == 1


def test_the_changes_fell_among_the_steps(recorded: Any) -> None:
    """Else the two tests above would say little."""
    _, ranks = recorded
    policies = [step["layers"][0][1] for step in ranks[0]]
    changes = sum(before != after for before, after in pairwise(policies))
    assert changes > CHANGES // 4
    assert len(set(policies)) > 10
    assert max(step["batch"] for step in ranks[0]) == STREAMS


def test_the_metrics_counted_the_steps_that_were_recorded(recorded: Any, servers: Servers) -> None:
    _, ranks = recorded
    metrics = servers.get("recorded-ep2").metrics()
    assert metrics["oea_config_changes_total"] == CHANGES
    assert metrics["oea_decode_batch_size_sum"] == sum(step["batch"] for step in ranks[0])
