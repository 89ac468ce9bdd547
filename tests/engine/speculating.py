"""Servers with speculative decoding: how one is started, and what comes of greedy prompts to it."""

from __future__ import annotations

import time
from collections.abc import Callable
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
    served = (
        "--model-path",
        str(model),
        "--served-model-name",
        "demo",
        "--enable-metrics",
        "--disable-radix-cache",
    )
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
    """What each counted step has routed, layer by layer, and which of its rows were accepted."""


def answers(server: Server, prompts: dict[str, Any], steps: Path | None = None) -> Answers:
    """Greedy prompts in one request, with nothing cached before.

    Args:
        prompts: the field of the request that has them, `text` or `input_ids`, and others in place
            of `SAMPLING`.
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
        {
            why: times - passed.get(why, 0)
            for why, times in later.items()
            if times != passed.get(why, 0)
        },
        [read(file) for file in sorted(steps.glob("*.pt"))] if steps else [],
    )


def read(file: Path) -> dict[str, Any]:
    """A step as tests/plugin has written it down."""
    return {**torch.load(file), "accepted": torch.load(file.with_suffix(".accepted"))}


def leading_to(step: dict[str, Any], row: int) -> list[int]:
    """The guesses of a tree that a row follows, from SGLang's links: each row's first child, and
    its next sibling."""
    children, siblings = (each[row // step["per_request"]] for each in step["links"])
    first, place = row - row % step["per_request"], row % step["per_request"]
    parents = {}
    for parent, first_child in enumerate(children):
        child = first_child
        while child >= 0:
            parents[child] = parent
            child = siblings[child]
    found = []
    while place and (place := parents[place]):
        found.append(first + place)
    return found


def check_rejected(
    found: Answers, floors_of: Callable[[torch.Tensor, int], list[list[int]]]
) -> None:
    """What is counted of rows that were accepted, and of experts that only the others woke, against
    the steps.

    Args:
        floors_of: logits [rows, N] and the place of a layer among those that are routed -> what
            each row is guaranteed.
    """
    only_rejected, accepted = 0, 0
    for step in found.routed:
        kept = step["accepted"]
        accepted += len(kept)
        # of each request the token's own row, and no row twice
        tokens = set(range(0, step["batch"], step["per_request"]))
        assert tokens <= set(kept) <= set(range(step["batch"]))
        assert len(set(kept)) == len(kept)
        for place, (logits, _, _) in enumerate(step["layers"]):
            floors = floors_of(logits, place)
            only_rejected += len(set().union(*floors) - set().union(*(floors[row] for row in kept)))
    assert found.gained["oea_accepted_rows_total"] == accepted
    # each row gives a token; the first is the prefill's, and the last step, and one begun before
    # its end, give more
    asked = len(found.ids) * (NEW_TOKENS - 1)
    assert asked <= accepted <= asked + 2 * len(found.ids) * found.routed[0]["per_request"]
    assert found.gained["oea_rejected_experts_total"] == only_rejected > 0


def bypassed(server: Server, metrics: dict[str, float]) -> dict[str, int]:
    """Why steps were not routed, once all of those in the metrics are in it: it is read once a
    second."""
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
    """The tokens of greedy prompts, and how many verify passes each took (0 without
    speculation)."""
    found = ask(
        "POST", f"{server.url}/generate", json={"sampling_params": SAMPLING, **prompts}, timeout=300
    ).json()
    return [each["output_ids"] for each in found], [
        each["meta_info"].get("spec_verify_ct", 0) for each in found
    ]
