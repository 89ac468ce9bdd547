"""A layer that drafts, on two ranks with batches of their own: a verify pass of both is one step
from one pool."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from oea_server_demo import GLM4_MOE

from oea_server.client.ask import ask
from oea_server.client.server import Server
from tests.engine.patched import IS_PATCHED
from tests.engine.speculating import NEW_TOKENS, generated, start
from tests.engine.test_serve_nextn import LAYERS, OURS, K, asked, chain
from tests.servers import DP_ATTENTION
from tests.transcript import REPLAY

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.launch,
    pytest.mark.skipif(
        IS_PATCHED or not REPLAY, reason="served once; the CPU platform has stand-ins for 0.5.23"
    ),
]
DRAFTS = 1
ROWS = DRAFTS + 1


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("records")


@pytest.fixture(scope="module")
def server(records: Path) -> Iterator[Server]:
    environment = {"RECORDER_FOLDER": str(records)}
    with start(GLM4_MOE, *chain(DRAFTS), *OURS, *DP_ATTENTION, environment=environment) as running:
        yield running


def fresh(server: Server, records: Path) -> dict[str, float]:
    ask("POST", f"{server.url}/flush_cache", server.key).raise_for_status()
    before = server.settled_metrics()
    for file in records.iterdir():
        file.write_bytes(b"")
    return before


def steps(records: Path) -> list[list[dict[str, Any]]]:
    """Each rank's."""
    found = [
        [json.loads(line) for line in path.read_text().splitlines()] for path in records.iterdir()
    ]
    return [each for each in found if each]


@pytest.mark.parametrize("prompts", [1, 2, 5])
def test_a_verify_pass_of_both_ranks_is_one_step(
    server: Server, records: Path, prompts: int
) -> None:
    """Idle, equal and unequal ranks; the rows that are tokens and drafts come to the same without
    what pads them."""
    before = fresh(server, records)
    ids, verified = generated(server, asked(prompts))
    gained = {name: value - before.get(name, 0) for name, value in server.settled_metrics().items()}
    one, other = steps(records)
    assert one == other
    assert all(sum(step["of_ranks"]) == step["batch"] and step["batch"] % ROWS == 0 for step in one)
    routed = [step for step in one if step["batch"] > ROWS]  # a lone request is vanilla
    assert {len(step["layers"]) for step in routed} <= {LAYERS}
    assert all(layer[3] is True for step in routed for layer in step["layers"])
    assert bool(routed) == (prompts > 1)
    assert {len(each) for each in ids} == {NEW_TOKENS}
    assert max(verified) < NEW_TOKENS - 1  # drafts are accepted
    rows = sum(step["batch"] for step in one)
    assert gained["oea_routed_tokens_total"] == rows * LAYERS
    assert gained["oea_decode_requests_total"] == rows / ROWS
    if prompts > 1:
        assert any(min(step["of_ranks"]) > 0 for step in routed)


def test_with_the_whole_top_k_guaranteed_answers_are_vanillas(server: Server) -> None:
    try:
        server.steer(k0=K)
        routed = generated(server, asked(5))
        server.steer(policy="vanilla")
        assert generated(server, asked(5)) == routed
    finally:
        server.steer(policy="oea", k0=2)
