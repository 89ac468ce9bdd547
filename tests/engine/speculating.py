"""Servers with speculative decoding: how one is started, and what comes of greedy prompts to it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from oea_server.client.ask import ask
from oea_server.client.server import Server
from tests.servers import COMMON, SETTLE, with_plugin

NEW_TOKENS = 32
SAMPLING = {"temperature": 0, "max_new_tokens": NEW_TOKENS, "ignore_eos": True}


def start(model: Path, *flags: str, **given: Any) -> Server:
    environment = {**given.pop("environment", {}), **with_plugin()}
    served = ("--model-path", str(model), "--served-model-name", "demo", "--enable-metrics", "--disable-radix-cache")
    server = Server(*served, *COMMON, *flags, environment=environment, **given)
    server.settle = SETTLE
    return server


@dataclass(frozen=True)
class Answers:
    ids: list[list[int]]
    verified: list[int]
    """Verify passes of each prompt."""
    gained: dict[str, float]
    bypassed: dict[str, int]
    routed: list[dict[str, Any]]
    """What each counted step has routed, layer by layer."""


def answers(server: Server, prompts: dict[str, Any], steps: Path | None = None) -> Answers:
    """Greedy prompts in one request, with nothing cached before.

    Args:
        prompts: the field of the request that has them, `text` or `input_ids`, and others in place of `SAMPLING`.
        steps: the server's ROUTED_FOLDER (tests/plugin).
    """
    ask("POST", f"{server.url}/flush_cache", server.key).raise_for_status()
    before = server.settled_metrics()
    passed = bypassed(server, before)
    for file in steps.iterdir() if steps else ():
        file.unlink()
    found = generated(server, prompts)
    after = server.settled_metrics()
    later = bypassed(server, after)
    return Answers(
        *found,
        {name: after[name] - before.get(name, 0) for name in after},
        {why: times - passed.get(why, 0) for why, times in later.items() if times != passed.get(why, 0)},
        [torch.load(file) for file in sorted(steps.iterdir())] if steps else [],
    )


def bypassed(server: Server, metrics: dict[str, float]) -> dict[str, int]:
    """Why steps were not routed, once all of those in the metrics are in it: it is read once a second."""
    wanted = metrics.get("oea_decode_batch_size_count", 0)
    for _ in range(60):
        stats = server.stats()
        if (stats["total"] or {"steps": 0})["steps"] == wanted:
            break
        time.sleep(SETTLE)
    else:
        raise AssertionError(f"{wanted:.0f} steps in the metrics, {stats['total']} in /oea/stats")
    found: dict[str, int] = stats["bypassed"]
    return found


def generated(server: Server, prompts: dict[str, Any]) -> tuple[list[list[int]], list[int]]:
    """The tokens of greedy prompts, and how many verify passes each took (0 without speculation)."""
    found = ask("POST", f"{server.url}/generate", json={"sampling_params": SAMPLING, **prompts}, timeout=300).json()
    return [each["output_ids"] for each in found], [each["meta_info"].get("spec_verify_ct", 0) for each in found]
