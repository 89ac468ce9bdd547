"""Pipeline stages and replicas on a CPU: each rank has cores, all agree, and a change reaches all."""

from __future__ import annotations

import pytest
import requests
from oea_server_demo import MODEL

from oea_server.client.server import Server
from tests.servers import COMMON, Servers

pytestmark = [pytest.mark.server("own"), pytest.mark.nightly]


@pytest.mark.parametrize("flags", [("--pp-size", "2"), ("--dp-size", "2")])
def test_served_and_steered(flags: tuple[str, str], servers: Servers) -> None:
    servers.stop()
    with Server("--model-path", str(MODEL), *COMMON, *flags) as server:
        asked = {"model": "demo", "prompt": "hello", "max_tokens": 8, "ignore_eos": True}
        for _ in range(4):
            answer = requests.post(f"{server.url}/v1/completions", json=asked, timeout=60).json()
            assert answer["usage"]["completion_tokens"] == 8
        server.steer(k0=2)
        config = server.config()
        assert (config["settings"]["k0"], config["ranks_agree"]) == ("2", True)
