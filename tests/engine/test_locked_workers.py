"""Keys on a real server with several HTTP workers, where SGLang itself keeps none."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from oea_server_demo import MODEL

from loadtest.chaos.orphans import workers
from oea_server.client.server import START_TIMEOUT, Server
from tests.servers import COMMON, Servers, command_lines

ADMIN, API = "the-admins-own", "what-customers-have"
TOKENS = 1500
pytestmark = pytest.mark.server("own")


@pytest.fixture(scope="module")
def server(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Two workers under a root path; one key from a file, one from a variable."""
    servers.stop()
    file = tmp_path_factory.mktemp("keys") / "admin"
    file.write_text(ADMIN + "\n")
    with Server(
        *("--model-path", str(MODEL), "--served-model-name", "demo", *COMMON),
        *("--tokenizer-worker-num", "2", "--fastapi-root-path", "/pre", "--log-level", "debug"),
        environment={"OEA_ADMIN_KEY_FILE": str(file), "OEA_API_KEY": API},
    ) as started:
        yield started


def counted(server: Server) -> tuple[float, float]:
    metrics = server.settled_metrics()
    return metrics["oea_routed_tokens_total"], metrics["oea_decode_batch_size_count"]


def test_its_own_warm_up_is_no_traffic(server: Server) -> None:
    assert counted(server) == (0, 0)


def ask(
    server: Server, method: str, path: str, key: str | None = None, **more: Any
) -> requests.Response:
    """On a connection of its own, so that either worker may get it."""
    headers = {
        "Connection": "close",
        **({"Authorization": f"Bearer {key}"} if key else {}),
        **more.pop("headers", {}),
    }
    return requests.request(method, f"{server.url}{path}", headers=headers, timeout=60, **more)


def test_no_worker_lets_anybody_change_anything(server: Server) -> None:
    before = ask(server, "GET", "/oea/config", API).json()
    for key in (None, "wrong", API):
        for _ in range(8):
            assert ask(server, "PUT", "/oea/config", key, json={"k0": 2}).status_code == 401
            assert ask(server, "POST", "/flush_cache", key).status_code == 401
            asked = {"server_args": {"oea_k0": 2}}
            assert ask(server, "POST", "/set_internal_state", key, json=asked).status_code == 401
    foreign = {"Origin": "http://evil.example"}
    assert (
        ask(server, "PUT", "/oea/config", ADMIN, json={"k0": 2}, headers=foreign).status_code == 403
    )
    assert ask(server, "GET", "/health", headers={"Host": "x/oea?"}).status_code == 400
    assert ask(server, "GET", "/oea/config", API).json() == before


def test_who_has_the_key_is_served_by_every_worker(server: Server) -> None:
    asked = {"model": "demo", "prompt": "hello", "max_tokens": 4}
    assert {
        ask(server, "POST", "/v1/completions", key, json=asked).status_code for key in (None, ADMIN)
    } == {401}
    answers = [
        ask(server, "POST", "/v1/completions", API, json=asked).status_code for _ in range(8)
    ]
    assert answers == [200] * 8
    assert ask(server, "PUT", "/oea/config", ADMIN, json={"k0": 2}).json()["settings"]["k0"] == "2"
    assert {ask(server, "GET", "/oea/config", API).json()["settings"]["k0"] for _ in range(8)} == {
        "2"
    }


def test_probes_and_the_page_need_no_key_under_a_root_path(server: Server) -> None:
    assert [ask(server, "GET", path).status_code for path in ("/health", "/metrics", "/oea")] == [
        200
    ] * 3


def test_no_key_is_told_logged_or_listed(server: Server) -> None:
    info = ask(server, "GET", "/server_info", ADMIN)
    assert info.json()["api_key"] == info.json()["admin_api_key"] == "***"
    assert ask(server, "GET", "/server_info", API).status_code == 401
    listed = command_lines(server)
    assert len(listed) > 3
    for text in (info.text, server.log.read_text(errors="replace"), *listed):
        assert not any(key in text for key in (ADMIN, API))


def test_the_command_beside_the_server_finds_the_key(server: Server, tmp_path: Path) -> None:
    (tmp_path / "admin").write_text(ADMIN)
    environment = {
        **os.environ,
        "OEA_URL": server.url,
        "OEA_ADMIN_KEY_FILE": str(tmp_path / "admin"),
    }
    command = [sys.executable, "-m", "oea_server", "config", "set", "policy=vanilla"]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert "policy: oea -> vanilla" in done.stdout, done.stderr


def test_the_warm_up_of_a_worker_that_replaces_another_is_no_traffic(server: Server) -> None:
    """The worker that goes on may get it."""
    before, ready = counted(server), starts(server)
    workers(server)[0].kill()
    deadline = time.monotonic() + START_TIMEOUT
    while starts(server) == ready and time.monotonic() < deadline:
        time.sleep(0.5)
    assert starts(server) == ready + 1
    assert counted(server) == before


def starts(server: Server) -> int:
    """Warm-ups that have ended."""
    return server.log.read_text(errors="replace").count("The server is fired up")


def test_a_closed_terminal_cuts_no_stream(server: Server) -> None:
    """SIGHUP goes to the whole group of processes: the server drains and ends, as with one worker.

    The stream outlasts the five seconds after which the worker that has nothing to answer ends.
    """
    assert server.process is not None
    asked = {
        "model": "demo",
        "prompt": "hello",
        "max_tokens": TOKENS,
        "ignore_eos": True,
        "stream": True,
    }
    asked["stream_options"] = {"include_usage": True}
    headers = {"Authorization": f"Bearer {API}"}
    with requests.post(
        f"{server.url}/v1/completions", json=asked, headers=headers, stream=True, timeout=60
    ) as reply:
        lines = (line for line in reply.iter_lines() if line)
        first = next(lines)
        os.killpg(server.process.pid, signal.SIGHUP)
        *_, usage, end = [first, *lines]
    assert end == b"data: [DONE]"
    assert f'"completion_tokens":{TOKENS}'.encode() in usage
    assert server.process.wait(60) == 0
    deadline = time.monotonic() + 30  # the others end when they find it gone
    while time.monotonic() < deadline and in_group(server.process.pid):
        time.sleep(0.2)
    assert in_group(server.process.pid) == []


def in_group(leader: int) -> list[str]:
    """What still runs of a process's group."""
    done = subprocess.run(
        ["ps", "-eo", "pgid=,stat=,args="], capture_output=True, text=True, check=True
    )
    lines = (line.split(maxsplit=2) for line in done.stdout.splitlines())
    return [" ".join(line) for line in lines if line[0] == str(leader) and line[1][0] != "Z"]
