"""Greedy prompts that decode in step, and a recount of the experts that SGLang's routing replay
says they took."""

from __future__ import annotations

import base64
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import requests

from oea_server.client.ask import ask
from oea_server.client.server import Server

TOGETHER, TOGETHER_STEPS = 7, 23
"""Prompts, and decode steps of each: its first token comes from the prefill."""


@dataclass(frozen=True)
class Together:
    experts: np.ndarray
    """[steps, layers, tokens, k]"""
    gained: dict[str, float]
    """What the metrics gained, health checks in between included (which should have added
    nothing)."""
    bypassed: dict[str, int]

    @property
    def layers(self) -> list[set[int]]:
        """The experts of each layer in each step."""
        steps, layers, *_ = self.experts.shape
        return [set(ids) for ids in self.experts.reshape(steps * layers, -1).tolist()]

    @property
    def tokens(self) -> list[set[int]]:
        """The experts of each token in each layer and step."""
        return [set(ids) for ids in self.experts.reshape(-1, self.experts.shape[-1]).tolist()]


def record_together(server: Server, layers: int, k: int, health_checks: int = 3) -> Together:
    """Seven prompts of one length in one request; again if they did not come into one batch.

    One prefill, too: other shapes round otherwise, and near ties of experts fall otherwise then.
    """
    for _ in range(20):
        ask("POST", f"{server.url}/flush_cache", server.key).raise_for_status()
        before, bypassed = server.settled_metrics(), server.stats()["bypassed"]
        with ThreadPoolExecutor(1) as pool:
            health = [
                pool.submit(requests.get, f"{server.url}/health_generate", timeout=60)
                for _ in range(health_checks)
            ]
            replays = [replay_of(meta, layers, k) for meta in _generate(server)]
        assert all(each.result().status_code == 200 for each in health)
        after, later = server.settled_metrics(), server.stats()["bypassed"]
        gained = {name: after[name] - before.get(name, 0) for name in after}
        passed = {reason: times - bypassed.get(reason, 0) for reason, times in later.items()}
        if gained["oea_decode_step_seconds_count"] == TOGETHER_STEPS and passed.get("prefill") == 1:
            experts = [replay[-TOGETHER_STEPS:] for replay in replays]
            return Together(
                np.stack(experts, axis=2), gained, {why: n for why, n in passed.items() if n}
            )
    raise AssertionError("the prompts never came into one batch")


def replay_of(meta: dict[str, Any], layers: int, k: int) -> np.ndarray:
    """SGLang's routing replay in an answer's `meta_info`: [tokens - 1, layers, k]; empty if there
    is none."""
    experts = np.frombuffer(base64.b64decode(meta.get("routed_experts", "")), dtype=np.int32)
    return experts.reshape(-1, layers, k)


def _generate(server: Server) -> list[dict[str, Any]]:
    body: dict[str, Any] = {
        "input_ids": [[100 + 7 * i + j for j in range(12)] for i in range(TOGETHER)],
        "sampling_params": {
            "temperature": 0,
            "max_new_tokens": TOGETHER_STEPS + 1,
            "ignore_eos": True,
        },
        "return_routed_experts": True,
    }
    reply = requests.post(f"{server.url}/generate", json=body, timeout=300)
    assert reply.status_code == 200, reply.text
    return [each["meta_info"] for each in reply.json()]
