"""Servers in a mode of SGLang that leaves a decode step as it is, with our router and without; what
they are asked, and what came of it.

Every counted step is kept by the tests' plug-in and recounted from its logits; SGLang's own routing
replay of each decoded token says the same, or that the token was not ours to route."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import requests
from oea_server_demo import MODEL

from oea_server.client.server import Server, without_us
from tests.engine.recount import replay_of
from tests.engine.routed import Recount, recount, replayed
from tests.servers import COMMON, LAYERS, SETTLE, K, with_plugin

K0, SOON = 3, 60.0
Adapters = Sequence[str | None]
"""Of the first request, of the second, and so on from the start."""


@dataclass(frozen=True)
class Served:
    server: Server
    steps: Path


@contextmanager
def serving(steps: Path, *flags: str) -> Iterator[Served]:
    """With our router, which guarantees three experts from one request on."""
    ours = ("--oea-k0", str(K0), "--oea-min-batch", "1", "--oea-pool", "union")
    environment = {**with_plugin(), "ROUTED_FOLDER": str(steps)}
    model = ("--model-path", str(MODEL), "--served-model-name", "demo")
    with Server(*model, *COMMON, *ours, *flags, environment=environment) as server:
        server.settle = SETTLE
        yield Served(server, steps)


class Heard(NamedTuple):
    """An answer."""

    ids: list[int]
    logprobs: list[float]
    experts: np.ndarray
    """[tokens but the last, layers, k], SGLang's routing replay, the prompt's in front."""
    from_host: int
    """Tokens of the prompt whose keys and values came back from the host's memory."""

    def same(self, other: Heard) -> bool:
        """To the bit; asserts, so that a test says which is not."""
        assert self.ids == other.ids
        assert self.logprobs == other.logprobs
        assert np.array_equal(self.decoded, other.decoded)
        return True

    @property
    def decoded(self) -> np.ndarray:
        """Of the decoded tokens alone."""
        return self.experts[len(self.experts) - len(self.ids) + 1 :]


def prompt(i: int, length: int) -> list[int]:
    return [100 + (7 * i + 3 * j + i * j // 5) % 900 for j in range(length)]


def ask(
    server: Server, ids: list[int], tokens: int, adapter: str | None = None, logprobs: bool = True
) -> Heard:
    """One greedy request, in full."""
    body = {
        "input_ids": ids,
        "sampling_params": {"temperature": 0, "max_new_tokens": tokens, "ignore_eos": True},
        "return_routed_experts": True,
        "return_logprob": logprobs,
        **({"lora_path": adapter} if adapter else {}),
    }
    reply = requests.post(f"{server.url}/generate", json=body, timeout=300)
    assert reply.status_code == 200, reply.text
    meta = reply.json()["meta_info"]
    said = [logprob for logprob, _, _ in meta.get("output_token_logprobs", [])]
    found: list[int] = reply.json()["output_ids"]
    assert len(found) == tokens
    host = (meta.get("cached_tokens_details") or {}).get("host", 0)
    return Heard(found, said, replay_of(meta, LAYERS, K), host)


def alone(server: Server, adapter: str | None = None) -> list[Heard]:
    """Prompts of one chunk and of several, one after the other, nothing of which is cached."""
    requests.post(f"{server.url}/flush_cache", timeout=30).raise_for_status()
    return [ask(server, prompt(20 + i, 9 + 41 * i), 12, adapter) for i in range(3)]


def without(flags: Sequence[str], do: Callable[[Server], Any]) -> Any:
    """What comes of it on SGLang without our router, in the same mode."""
    with without_us("--model-path", str(MODEL), *COMMON, *flags) as server:
        return do(server)


class Said(NamedTuple):
    found: Recount
    gained: dict[str, float]
    bypassed: dict[str, int]
    decoded: Counter[tuple[int, ...]]
    """The experts of each decoded token in each layer, of SGLang's routing replay."""
    answers: list[Heard]


def chat(served: Served, adapters: Adapters = (None,), logprobs: bool = True) -> Said:
    """Four requests, and four more once those decode, of several lengths; what the server made of
    all."""
    before, passed = served.server.settled_metrics(), served.server.stats()["bypassed"]
    recount(served.steps, K0)

    def one(i: int) -> Heard:
        length = 10 + 60 * (i % 3)
        return ask(
            served.server, prompt(i, length), 60 - 5 * i, adapters[i % len(adapters)], logprobs
        )

    with ThreadPoolExecutor(8) as pool:
        first = [pool.submit(one, i) for i in range(4)]
        until(
            served.server,
            "oea_decode_batch_size_sum",
            before.get("oea_decode_batch_size_sum", 0) + 20,
        )
        answers = [each.result() for each in first + [pool.submit(one, i) for i in range(4, 8)]]
    gained, bypassed = since(served.server, before, passed)
    return Said(
        recount(served.steps, K0),
        gained,
        bypassed,
        replayed(each.decoded for each in answers),
        answers,
    )


def until(server: Server, name: str, least: float) -> None:
    """Wait for a metric."""
    deadline = time.monotonic() + SOON
    while server.metrics().get(name, 0) < least:
        assert time.monotonic() < deadline, f"{name} is not {least} after {SOON} s"
        time.sleep(0.02)


def since(
    server: Server, before: dict[str, float], passed: dict[str, int]
) -> tuple[dict[str, float], dict[str, int]]:
    """What metrics have gained, and the forward passes since that were not routed, by reason."""
    gained = {name: value - before.get(name, 0) for name, value in server.settled_metrics().items()}
    later = server.stats()["bypassed"]
    return gained, {
        why: times - passed.get(why, 0)
        for why, times in later.items()
        if times != passed.get(why, 0)
    }
