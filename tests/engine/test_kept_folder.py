"""A server whose folder for metrics was used before: by one that was killed, and by all kinds that
the tests started before this one (plain SGLang, which leaves its files there, and a vanilla
server)."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from oea_server.client.server import Server
from tests.servers import KILLED, Servers

pytestmark = pytest.mark.server("oea")

NAME = re.compile(r"oea-[0-9a-f]{32}")


@pytest.fixture
def server(servers: Servers) -> Server:
    return servers.get("oea")


@pytest.fixture
def own(server: Server, servers: Servers) -> Path:
    """The running server's folder."""
    (found,) = [place for place in servers.kept.iterdir() if NAME.fullmatch(place.name)]
    return found


@pytest.fixture
def foreign(own: Path) -> Iterator[list[Path]]:
    """Files in it that nobody can read."""
    paths = [own / "0.oea", own / "zeros.oea", own / "counter_0.db", own / "notes.db"]
    paths[0].touch()
    paths[1].write_bytes(bytes(4096))
    paths[2].touch()
    paths[3].write_bytes(b"SQLite format 3\0")
    yield paths
    for path in paths:
        path.unlink()


def metrics(server: Server) -> str:
    reply = requests.get(f"{server.url}/metrics", timeout=30)
    assert reply.status_code == 200
    return reply.text


def chat(server: Server) -> None:
    server.client.chat.completions.create(
        model="demo",
        messages=[{"role": "user", "content": "hello"}],
        max_tokens=8,
        extra_body={"ignore_eos": True},
    )


def test_nothing_of_an_earlier_start_is_shown(server: Server, own: Path) -> None:
    assert own.name != KILLED
    text = metrics(server)
    assert "\noea_router_active 1.0\n" in text
    assert not re.search(r"^oea_router_limits{.*policy is vanilla.*} 1", text, re.M)
    assert re.search(r'^oea_policy_info{.*policy="oea".*} 1.0$', text, re.M)


def test_sglangs_own_metrics_are_of_this_start_too(server: Server, own: Path) -> None:
    chat(server)
    assert any(b'"sglang:' in path.read_bytes() for path in own.glob("*.db"))
    assert "\nsglang:num_requests_total" in metrics(server)


def test_files_that_nobody_can_read_stop_nothing_and_are_named_once(
    server: Server, foreign: list[Path]
) -> None:
    steps = server.settled_metrics()["oea_decode_batch_size_count"]
    chat(server)
    assert server.settled_metrics()["oea_decode_batch_size_count"] == steps + 7
    deadline = time.monotonic() + 30
    while (now := server.stats()["total"]["steps"]) < steps + 7 and time.monotonic() < deadline:
        time.sleep(0.5)  # both count from the start on; looks come once a second
    assert now == steps + 7
    for _ in range(3):
        metrics(server)
        time.sleep(1.1)  # a look a second
    log = server.log.read_text()
    assert [log.count(f"passed over {path}: ") for path in foreign] == [1, 1, 1, 1]
    assert "Traceback" not in log
