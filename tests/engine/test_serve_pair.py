"""A disaggregated pair on one machine: a worker that prefills, one that decodes, and SGLang's
router before them."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import requests
from oea_server_demo import MODEL

from oea_server.client import ports
from oea_server.client.server import Server
from tests.deploy.test_router import ready
from tests.engine.patched import IS_PATCHED
from tests.engine.recount import replay_of
from tests.engine.routed import agrees, recount, replayed
from tests.servers import COMMON, LAYERS, SETTLE, K, Servers, with_plugin
from tests.transcript import NEW_TOKENS, PROMPTS, REPLAY

pytestmark = [
    pytest.mark.server("plain"),
    pytest.mark.nightly,
    pytest.mark.skipif(IS_PATCHED or not REPLAY, reason="run with SGLang 0.5.23"),
]
K0, TOGETHER = 3, 7
NEVER = "prefill worker: never decodes"


class Pair(NamedTuple):
    prefill: Server
    decode: Server
    bootstrap: int
    """The port at which the prefill worker tells where it is."""
    steps: Path
    """Where the decode worker's steps are kept."""


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    steps, bootstrap = tmp_path_factory.mktemp("steps"), ports.free()
    model = ("--model-path", str(MODEL), "--served-model-name", "demo", *COMMON)
    through = (
        "--disaggregation-transfer-backend",
        "mooncake",
        "--disaggregation-bootstrap-port",
        str(bootstrap),
    )
    ours = ("--oea-k0", str(K0), "--oea-min-batch", "1", "--oea-pool", "union")
    prefill = Server(
        *model, *through, "--disaggregation-mode", "prefill", environment=with_plugin()
    )
    environment = {**with_plugin(), "ROUTED_FOLDER": str(steps)}
    decode = Server(
        *model, *through, "--disaggregation-mode", "decode", *ours, environment=environment
    )
    prefill.settle = decode.settle = SETTLE
    with ThreadPoolExecutor(2) as pool:
        starts = [pool.submit(worker.start) for worker in (prefill, decode)]
    try:
        for each in starts:
            each.result()
        yield Pair(prefill, decode, bootstrap, steps)
    finally:
        prefill.stop()
        decode.stop()


def generate(pair: Pair, tokens: int = NEW_TOKENS, **prompts: list[Any]) -> list[dict[str, Any]]:
    """The decode worker's answers; both are asked, as SGLang's router would."""
    n = len(next(iter(prompts.values())))
    asked = {
        **prompts,
        "sampling_params": {"temperature": 0, "max_new_tokens": tokens, "ignore_eos": True},
        "return_routed_experts": True,
        "bootstrap_host": ["127.0.0.1"] * n,
        "bootstrap_port": [pair.bootstrap] * n,
        "bootstrap_room": [random.randrange(2**62) for _ in range(n)],
    }
    workers = (pair.prefill, pair.decode)
    with ThreadPoolExecutor(2) as pool:
        replies = list(
            pool.map(
                lambda worker: requests.post(f"{worker.url}/generate", json=asked, timeout=120),
                workers,
            )
        )
    assert [reply.status_code for reply in replies] == [200, 200], [reply.text for reply in replies]
    return list(replies[1].json())


def test_each_decode_step_is_routed_and_counted(pair: Pair) -> None:
    before, passed = pair.decode.settled_metrics(), pair.decode.stats()["bypassed"]
    recount(pair.steps, K0)
    answers = generate(
        pair, input_ids=[[100 + 7 * i + j for j in range(12)] for i in range(TOGETHER)]
    )
    gained = {
        name: value - before.get(name, 0) for name, value in pair.decode.settled_metrics().items()
    }
    found = recount(pair.steps, K0)
    assert agrees(gained, found)
    assert found.unique < gained["oea_vanilla_unique_experts_sum"]
    # SGLang's own record: it has no rows of steps that ran before a request was seen to have all
    # its tokens
    decoded = replayed(
        replay_of(each["meta_info"], LAYERS, K)[-(NEW_TOKENS - 1) :] for each in answers
    )
    assert decoded.total() == TOGETHER * (NEW_TOKENS - 1) * LAYERS
    assert decoded <= found.rows
    assert found.tokens <= TOGETHER * NEW_TOKENS * LAYERS
    assert pair.decode.stats()["bypassed"] == passed  # it has no prefills


def test_with_vanilla_the_tokens_are_those_of_a_server_without_us(
    pair: Pair, servers: Servers
) -> None:
    pair.decode.steer(policy="vanilla")
    try:
        answers = [generate(pair, text=[prompt])[0]["output_ids"] for prompt in PROMPTS]
    finally:
        pair.decode.steer(policy="oea")
    assert answers == [each.ids for each in servers.transcript("plain").generations]


def test_a_prefill_worker_says_that_it_never_decodes(pair: Pair) -> None:
    passed = pair.prefill.stats()["bypassed"].get("prefill", 0)
    generate(pair, text=["The file system is"])
    assert f"OEA: router inactive: {NEVER}" in pair.prefill.log.read_text()
    text = requests.get(f"{pair.prefill.url}/metrics", timeout=30).text
    assert f'oea_router_limits{{reason="{NEVER}"}} 1.0' in text
    assert "oea_router_active 0.0" in text
    pair.prefill.settled_metrics()
    assert pair.prefill.stats()["bypassed"]["prefill"] == passed + 1
    assert pair.prefill.settled_metrics()["oea_decode_batch_size_count"] == 0
    assert "oea_router_active 1.0" in requests.get(f"{pair.decode.url}/metrics", timeout=30).text


def test_sglangs_router_chats_with_the_pair(pair: Pair, tmp_path: Path) -> None:
    port, log = ports.free(), tmp_path / "log"
    words = [
        "--host=127.0.0.1",
        f"--port={port}",
        f"--prometheus-port={ports.free()}",
        "--pd-disaggregation",
    ]
    words += ["--prefill", pair.prefill.url, str(pair.bootstrap), "--decode", pair.decode.url]
    with log.open("wb") as out:
        router = subprocess.Popen(
            [sys.executable, "-m", "sglang_router.launch_router", *words],
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline = time.monotonic() + 120
        while not ready(f"http://127.0.0.1:{port}"):
            assert router.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.5)
        recount(pair.steps, K0)
        asked = {
            "model": "demo",
            "messages": [{"role": "user", "content": "hello"}],
            "max_tokens": 9,
        }
        reply = requests.post(
            f"http://127.0.0.1:{port}/v1/chat/completions",
            json={**asked, "ignore_eos": True},
            timeout=60,
        )
        assert reply.status_code == 200, reply.text
        assert reply.json()["usage"]["completion_tokens"] == 9
        assert recount(pair.steps, K0).tokens >= 8 * LAYERS
    finally:
        router.kill()
        router.wait()
