"""Changes while 16 chats stream from two ranks: nothing lost, nothing torn."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest

from oea_server.client.server import Server
from tests.servers import LAYERS, Servers

pytestmark = pytest.mark.server("k3-ep2")

STREAMS = 16


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


@dataclass(frozen=True)
class Recorded:
    changes: int
    answers: list[dict[str, Any]]
    """The server's to each change."""
    ranks: list[list[dict[str, Any]]]
    """Every rank's own record of its steps."""
    gained: dict[str, float]
    """What the metrics gained."""


@pytest.fixture(scope="module", params=[60, pytest.param(200, marks=pytest.mark.nightly)])
def recorded(request: pytest.FixtureRequest, servers: Servers) -> Recorded:
    changes: int = request.param
    server = servers.get("k3-ep2")
    files = sorted(servers.records.glob("*.jsonl"))
    before, starts = server.settled_metrics(), [path.stat().st_size for path in files]
    stop: list[bool] = []
    answers = []
    with ThreadPoolExecutor(STREAMS) as pool:
        streams = [pool.submit(stream, server, i, stop) for i in range(STREAMS)]
        try:
            for i in range(changes):
                server.steer(
                    policy=("oea", "vanilla", "oea", "pruned", "shadow")[i % 5], k0=1 + i % 8
                )
                answers.append(server.config())
                time.sleep(0.05)
        finally:
            stop.append(True)
            server.steer(**answers[0]["started_with"])
    assert all(each.result() > 0 for each in streams)
    gained = {name: value - before.get(name, 0) for name, value in server.settled_metrics().items()}
    lines = [
        path.read_bytes()[start:].splitlines() for path, start in zip(files, starts, strict=True)
    ]
    return Recorded(
        changes, answers, [[json.loads(line) for line in rank] for rank in lines], gained
    )


def test_every_change_was_taken_in_turn(recorded: Recorded) -> None:
    versions = [each["version"] for each in recorded.answers]
    assert versions == list(range(versions[0], versions[0] + recorded.changes))
    for i, each in enumerate(recorded.answers):
        assert each["settings"]["k0"] == str(1 + i % 8)


def test_every_step_used_one_configuration_the_same_on_both_ranks(recorded: Recorded) -> None:
    one, other = recorded.ranks
    assert one == other
    for step in one:
        assert len(step["layers"]) == LAYERS
        assert len({policy for _, policy, _ in step["layers"]}) == 1


def test_the_changes_fell_among_the_steps(recorded: Recorded) -> None:
    """Else the two tests above would say little."""
    steps = recorded.ranks[0]
    policies = [step["layers"][0][1] for step in steps]
    changes = sum(before != after for before, after in pairwise(policies))
    assert changes > recorded.changes // 4
    assert len(set(policies)) > 10
    assert max(step["batch"] for step in steps) == STREAMS


def test_the_metrics_counted_the_steps_that_were_recorded(recorded: Recorded) -> None:
    # and back to what it was started with
    assert recorded.gained["oea_config_changes_total"] == recorded.changes + 1
    assert recorded.gained["oea_decode_batch_size_sum"] == sum(
        step["batch"] for step in recorded.ranks[0]
    )
