"""LoRA, HiCache, chunked and mixed prefill, each served for real: what was routed, and what was
counted."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import requests

from oea_server.client.server import Server
from tests.engine.adapter import write_adapter
from tests.engine.modes import (
    Heard,
    Said,
    Served,
    alone,
    ask,
    chat,
    prompt,
    serving,
    since,
    until,
    without,
)
from tests.engine.patched import IS_PATCHED
from tests.engine.routed import agrees
from tests.servers import LAYERS, K, Servers
from tests.transcript import REPLAY

pytestmark = [
    pytest.mark.server("own"),
    pytest.mark.nightly,
    pytest.mark.skipif(IS_PATCHED or not REPLAY, reason="run with SGLang 0.5.23"),
]
LORA = "loud"
CHUNK = 32
CHUNKED = ("--chunked-prefill-size", str(CHUNK))
MIXED = (*CHUNKED, "--enable-mixed-chunk")
# room for one long prompt and little else; the host has room for all
HICACHE = ("--enable-hierarchical-cache", "--hicache-ratio", "8", "--max-total-tokens", "1400")
LONG, TOKENS = 900, 300


@pytest.fixture
def steps(servers: Servers, tmp_path: Path) -> Path:
    servers.stop()
    folder = tmp_path / "steps"
    folder.mkdir()
    return folder


def agree(said: Said) -> None:
    """Whether metrics, recount and SGLang's own record say the same of every decoded token."""
    assert agrees(said.gained, said.found)
    assert said.decoded == said.found.rows
    assert set(said.bypassed) == {"prefill"}
    assert said.found.unique < said.gained["oea_vanilla_unique_experts_sum"]


def as_without_us(server: Server, plain: list[Heard], adapter: str | None = None) -> None:
    """Whether a vanilla server says to the bit what SGLang says without our router."""
    server.steer(policy="vanilla")
    for ours, theirs in zip(alone(server, adapter), plain, strict=True):
        assert ours.same(theirs)
    server.steer(policy="oea")


def test_adapters_change_what_is_said_and_no_step(steps: Path, tmp_path: Path) -> None:
    """Requests with the adapter and without decode in the same steps, and choose from one pool."""
    (tmp_path / "adapter").mkdir()
    flags = ("--enable-lora", "--lora-paths", f"{LORA}={write_adapter(tmp_path / 'adapter')}")
    base, adapted = without(flags, lambda server: (alone(server), alone(server, LORA)))
    assert all(one.ids != other.ids for one, other in zip(base, adapted, strict=True))
    with serving(steps, *flags) as served:
        as_without_us(served.server, base)
        as_without_us(served.server, adapted, LORA)
        agree(chat(served, adapters=(LORA, None)))


def test_prompts_in_chunks_come_between_steps(steps: Path) -> None:
    plain = without(CHUNKED, alone)
    with serving(steps, *CHUNKED) as served:
        as_without_us(served.server, plain)
        mark = len(served.server.log.read_text())
        said = chat(served)
        agree(said)
        assert said.bypassed["prefill"] > sum(10 + 60 * (i % 3) for i in range(8)) / CHUNK
        prefills = re.findall(
            r"#new-token: (\d+),.*#running-req: (\d+)", served.server.log.read_text()[mark:]
        )
        assert prefills
        assert all(int(tokens) <= CHUNK for tokens, _ in prefills)
        # of the first four, beside the second's chunks
        assert any(int(running) >= 4 for _, running in prefills)


def test_a_prefix_that_comes_back_from_the_host_changes_no_step(steps: Path) -> None:
    plain = without(HICACHE, evicted_and_back)
    with serving(steps, *HICACHE) as served:
        served.server.steer(policy="vanilla")
        for ours, theirs in zip(evicted_and_back(served.server), plain, strict=True):
            assert ours.same(theirs)
        served.server.steer(policy="oea")
        agree(chat(served))
        ask(served.server, prompt(60, LONG), 2)
        again = chat(served)
        agree(again)
        assert sum(each.from_host for each in again.answers) > 100


def evicted_and_back(server: Server) -> list[Heard]:
    """A long prompt's answer; the same when others had taken its place in the cache, as loaded from
    the host."""
    requests.post(f"{server.url}/flush_cache", timeout=30).raise_for_status()
    first, _, again = (ask(server, prompt(i, LONG), 12) for i in (50, 51, 50))
    assert first.from_host == 0
    assert again.from_host > LONG / 2
    assert again.ids == first.ids
    assert np.array_equal(again.decoded, first.decoded)
    return [first, again]


class Mixed(NamedTuple):
    served: Served
    plain: Heard
    """What SGLang without us says alone, in this mode."""


@pytest.fixture(scope="module")
def mixed(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mixed]:
    servers.stop()
    plain = without(MIXED, lambda server: ask(server, prompt(30, 20), TOKENS, logprobs=False))
    with serving(tmp_path_factory.mktemp("steps"), *MIXED) as served:
        yield Mixed(served, plain)


def test_mixed_steps_run_vanilla_and_say_so(mixed: Mixed) -> None:
    """The last rows of a mixed step are decoded tokens, behind those of prefills: none of ours, and
    none is counted."""
    said = chat(mixed.served, logprobs=False)
    assert agrees(said.gained, said.found)
    assert said.found.rows <= said.decoded
    theirs = said.decoded - said.found.rows
    assert {len(experts) for experts in theirs} == {K}
    times = said.bypassed["mixed"]
    assert 0 < LAYERS * times <= theirs.total() <= LAYERS * 8 * times
    assert LAYERS * said.gained["oea_decode_requests_total"] == said.found.tokens


def test_a_request_that_decodes_beside_chunks_is_sglangs_own(mixed: Mixed) -> None:
    """A step of several requests would be routed; here one decodes, alone or in mixed steps: that
    is as without us."""
    server = mixed.served.server
    server.steer(k0=1, min_batch=2)
    before, passed = server.settled_metrics(), server.stats()["bypassed"]
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(ask, server, prompt(30, 20), TOKENS, logprobs=False)
        until(server, "oea_decode_batch_size_sum", before["oea_decode_batch_size_sum"] + 5)
        ask(server, prompt(31, LONG), 1, logprobs=False)
        assert answer.result().same(mixed.plain)
    gained, bypassed = since(server, before, passed)
    times = bypassed.pop("mixed")
    assert times >= LONG / CHUNK
    assert gained["oea_decode_batch_size_sum"] == TOKENS - 1 - times
    assert bypassed == {"prefill": 1, "schedule": TOKENS - 1 - times}
