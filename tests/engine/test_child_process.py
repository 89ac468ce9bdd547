"""A server that a supervisor starts in a child process is the same server: routes, keys, refusals,
counts."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from oea_server_demo import MODEL

from oea_server.client.server import Server
from tests.servers import COMMON, Servers

KEY = "the-admins-own"
IN_A_CHILD = (sys.executable, str(Path(__file__).with_name("in_a_child.py")))
FLAGS = ("--model-path", str(MODEL), "--served-model-name", "demo", "--enable-metrics", *COMMON)
DEAD_PROXY = dict.fromkeys(
    ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy"), "http://127.0.0.1:9"
)
CHATS, TOKENS = 4, 8
pytestmark = pytest.mark.server("own")


@pytest.fixture(scope="module")
def server(servers: Servers) -> Iterator[Server]:
    """With a key, and proxies that lead nowhere: SGLang's own warm-up has to come through."""
    servers.stop()
    environment = {"OEA_K0": "3", "OEA_MIN_BATCH": "1", "OEA_ADMIN_KEY": KEY, **DEAD_PROXY}
    with Server(*FLAGS, environment=environment, command=IN_A_CHILD, key=KEY) as started:
        yield started


def test_its_own_warm_up_is_no_traffic(server: Server) -> None:
    metrics = server.settled_metrics()
    assert (metrics["oea_routed_tokens_total"], metrics["oea_decode_batch_size_count"]) == (0, 0)
    assert metrics["oea_router_active"] == 1


def test_every_chat_is_counted_and_nothing_else(server: Server) -> None:
    layers = server.config()["model"]["layers"]
    for _ in range(CHATS):
        asked = {"model": "demo", "prompt": "hello", "max_tokens": TOKENS, "ignore_eos": True}
        assert requests.post(f"{server.url}/v1/completions", json=asked, timeout=60).ok
    # the first token of each comes from the prefill
    assert server.settled_metrics()["oea_routed_tokens_total"] == CHATS * (TOKENS - 1) * layers


def test_its_key_is_asked_for(server: Server) -> None:
    assert requests.put(f"{server.url}/oea/config", json={"k0": 2}, timeout=60).status_code == 401
    server.steer(k0=2)
    assert server.config()["settings"]["k0"] == "2"


def test_what_is_refused_in_a_main_process_is_refused_in_a_child(servers: Servers) -> None:
    servers.stop()
    with pytest.raises(RuntimeError, match="enable-torch-compile"):
        Server(
            *FLAGS, "--enable-torch-compile", environment={"OEA_K0": "3"}, command=IN_A_CHILD
        ).start()
