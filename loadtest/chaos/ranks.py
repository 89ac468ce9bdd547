"""Two ranks that verify drafts together, or that have batches of their own: a rank is killed,
clients leave in the middle of a step, knobs change under streams.

Each rank writes its steps down, by the plug-in of the tests (`RECORDER_FOLDER`). When all is over,
the ranks have to have written the same, each step by one policy."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from loadtest.chaos import connections, fatal, traces
from loadtest.chaos.arena import Arena, body, server
from loadtest.chaos.operators import get, put
from loadtest.chaos.outcome import BROKE, Outcome, Seen
from loadtest.chaos.steering import REFUSED
from loadtest.client import BROKEN, chat, session

PLUGIN = Path(__file__).parents[2] / "tests/plugin"
PATIENCE = 180.0
"""Seconds: two ranks share a busy machine's cores."""
STREAMS, TOKENS, CHANGES = 8, 100, 70
KNOBS = tuple(
    {"policy": policy, "k0": str(k0)}
    for k0, policy in enumerate(("oea", "vanilla", "oea", "pruned"), 2)
)
ALL_OWN: dict[str, Any] = {"k0": "8", "share": "0.000001", "min_batch": 1}
"""Routed by us, even alone, and yet each token takes its own top k: so other clients' answers
change nobody's. Without the share SGLang's own top k would run."""


class Mode(NamedTuple):
    """How two ranks serve.

    Args:
        refused: a change that they cannot make, besides those that nobody can.
    """

    name: str
    flags: tuple[str, ...]
    refused: tuple[dict[str, Any], ...] = ()


DRAFTS = Mode(
    "NGRAM, TP2",
    ("--tp", "2", "--speculative-algorithm", "NGRAM", "--speculative-num-draft-tokens", "4"),
    ({"pool": "budget", "rank_budget": 4, "k0": "1"},),
)
DP = Mode("DP attention, TP2", ("--tp", "2", "--dp", "2", "--enable-dp-attention"))


async def killed(mode: Mode) -> Outcome:
    """SIGKILL to the second rank, amid steps."""
    with server("--oea-policy", "oea", *mode.flags) as running:
        return await fatal.ending(
            f"kill -9 of a rank ({mode.name})", running, fatal.kill("TP1"), whole=False
        )


async def cancels(mode: Mode) -> Outcome:
    """A storm of clients who leave while steps run; those who stay hear what they hear without
    it."""
    return await _recorded(
        f"a storm of cancels ({mode.name})", mode, connections.cancel_storm, alone=False
    )


async def changes(mode: Mode) -> Outcome:
    """Knobs change all the time under streams of which some are given up; some changes have to be
    refused."""
    return await _recorded(
        f"knobs change under streams ({mode.name})", mode, partial(_flap, mode), alone=True
    )


async def _recorded(
    name: str, mode: Mode, fault: Callable[[Arena], Awaitable[Seen]], alone: bool
) -> Outcome:
    """A fault on a server whose ranks write their steps down; judged by these as well."""
    with TemporaryDirectory(prefix="chaos-") as folder:
        paths = os.pathsep.join([str(PLUGIN), os.environ.get("PYTHONPATH", "")])
        with server(
            *mode.flags, environment={"PYTHONPATH": paths, "RECORDER_FOLDER": folder}
        ) as running:
            shared = await asyncio.to_thread(traces.shared_memory, running)
            arena = Arena(running, None, None)
            arena.admin.steer(policy="oea", **ALL_OWN)
            await arena.learn()
            found = await arena.bear(name, fault, alone, PATIENCE)
        traces.sweep(shared)
        said, wrong = agreement([path.read_text() for path in sorted(Path(folder).glob("*.jsonl"))])
    return found._replace(
        client_saw=f"{found.client_saw}; {said}",
        verdict=BROKE if wrong else found.verdict,
        why=(*found.why, *wrong),
    )


def agreement(written: list[str]) -> tuple[str, list[str]]:
    """What ranks have written down of their steps, and what is wrong with it.

    Args:
        written: of each rank, a line of JSON for each step, as tests/plugin/oea_tests.py says.
    """
    ranks = [each for text in written if (each := [json.loads(line) for line in text.splitlines()])]
    if len(ranks) != 2:
        return "no record", [f"{len(ranks)} ranks wrote steps down, not 2"]
    one, other = ranks
    wrong = []
    if one != other:
        at = next(
            (i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b),
            min(len(one), len(other)),
        )
        wrong.append(f"the ranks' steps differ from number {at} of {len(one)} and {len(other)} on")
    mixed = sum(len({layer[1] for layer in step["layers"]}) > 1 for step in one)
    if mixed:
        wrong.append(f"{mixed} steps were routed by more than one policy")
    astray = sum(layer[3] is not True for step in one for layer in step["layers"] if len(layer) > 3)
    if astray:
        wrong.append(f"{astray} layers are no recount of their tokens' rows")
    if not any(layer[2] is not None for step in one for layer in step["layers"]):
        wrong.append("no step was routed")
    policies = len({step["layers"][0][1] for step in one if step["layers"]})
    return (
        (
            f"both ranks wrote the same {len(one)} steps, by {policies} policies"
            if not wrong
            else "records"
        ),
        wrong,
    )


async def _flap(mode: Mode, arena: Arena) -> Seen:
    wrong, over, taken = list[str](), asyncio.Event(), 0
    asked: tuple[dict[str, Any], ...] = (*KNOBS, *REFUSED[:2], *mode.refused)
    streams = [asyncio.create_task(_ask(arena, number, over)) for number in range(STREAMS)]
    async with session(timeout=PATIENCE) as http:
        for number in range(CHANGES):
            knobs = asked[number % len(asked)]
            right = knobs in KNOBS
            before = await get(http, arena.url)
            reply = await put(http, arena.url, None, **knobs)
            after = await get(http, arena.url)
            if right != (reply.status == 200) or (not right and not 400 <= reply.status < 500):
                wrong.append(f"{knobs}: {reply.status}: {reply.body.get('error', '')}"[:150])
            if after.body["settings"] != before.body["settings"] | (knobs if right else {}):
                wrong.append(f"in force after {knobs} is {after.body['settings']}"[:250])
            if not after.body["ranks_agree"]:
                wrong.append("the ranks no longer agree")
            taken += right
    over.set()
    heard = [line for lines in await asyncio.gather(*streams) for line in lines]
    wrong += [each for each in heard if each not in ("whole", "left")]
    what = f"{taken} changes taken and {CHANGES - taken} refused under {STREAMS} streams at once, "
    what += f"{heard.count('whole')} of them whole, {heard.count('left')} given up"
    return Seen(what, tuple(dict.fromkeys(wrong)))


async def _ask(arena: Arena, number: int, over: asyncio.Event) -> list[str]:
    """Streams one after the other, how each ended; half of the askers go away before the end."""
    heard = list[str]()
    async with session(timeout=PATIENCE) as http:
        while not over.is_set():
            content = body(f"{number}: what changes?", TOKENS)
            try:
                stream = await chat(
                    http, arena.url, content, cancel_after=20 if number % 2 else None
                )
            except BROKEN as error:
                return [*heard, f"a stream broke: {type(error).__name__}: {error}"[:150]]
            whole = (
                "whole"
                if stream.tokens == TOKENS
                else f"a stream of {TOKENS} tokens has {stream.tokens}"
            )
            heard.append(whole if stream.done else "left")
    return heard
