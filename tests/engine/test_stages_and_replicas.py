"""Pipeline stages, replicas and HTTP workers on a CPU: each rank has cores, all agree, a change
reaches all, and what replicas and HTTP workers route is counted once."""

from __future__ import annotations

from pathlib import Path

import pytest
import requests
from oea_server_demo import MODEL

from oea_server.client.server import Server
from tests.engine.modes import chat, serving
from tests.engine.patched import IS_PATCHED
from tests.engine.routed import agrees
from tests.servers import COMMON, Servers
from tests.transcript import REPLAY

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


@pytest.mark.skipif(IS_PATCHED or not REPLAY, reason="run with SGLang 0.5.23")
@pytest.mark.parametrize(
    "flags", [("--pp-size", "2"), ("--dp-size", "2"), ("--tokenizer-worker-num", "2")]
)
def test_counted_once(flags: tuple[str, str], servers: Servers, tmp_path: Path) -> None:
    servers.stop()
    with serving(tmp_path, *flags) as served:
        said = chat(served)
        assert agrees(said.gained, said.found)
        # SGLang's replay has the layers of the last stage alone
        unknown = said.decoded.pop((0,), 0)
        assert bool(unknown) == ("--pp-size" in flags)
        assert said.decoded <= said.found.rows
        assert unknown + said.decoded.total() == said.found.tokens
        assert set(said.bypassed) == {"prefill"}
