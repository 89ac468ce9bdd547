"""Many more requests than a server has room for."""

from __future__ import annotations

import asyncio
import json
from collections import Counter

import aiohttp

from loadtest.chaos.arena import DEADLINE, Arena, body, server
from loadtest.chaos.outcome import Outcome, Seen
from loadtest.chaos.probes import probing
from loadtest.client import BROKEN, PATH, RefusedError, chat, session
from loadtest.stream import StreamError

RUNNING, QUEUED = 4, 16
"""Requests that the server takes at once, and that may wait."""
CROWD, CROWD_TOKENS = 10 * RUNNING + QUEUED, 160
WHOLE, REFUSALS, IN_STREAM = "whole", ("429", "503"), "200 with a 503 in it"
FULL = "'code': 503"


async def saturation() -> Outcome:
    """Ten times the streams that fit: each is answered or refused in a word, and whoever looks
    after it is answered."""
    limits = ("--max-running-requests", str(RUNNING), "--max-queued-requests", str(QUEUED))
    with server(*limits) as running:
        arena = Arena(running, None, None)
        await arena.learn()
        # alone: bystanders would be refused as well
        return await arena.bear(
            "ten times the streams that fit", _saturate, alone=True, deadline=3 * DEADLINE
        )


async def _saturate(arena: Arena) -> Seen:
    async with session(timeout=2 * DEADLINE) as http, probing(arena.url, arena.key) as probes:
        heard = await asyncio.gather(*(_hear(http, arena.url, number) for number in range(CROWD)))
        again = await chat(http, arena.url, body("is there room again?", 8))
    return crowd_seen(Counter(heard), again.done, probes)


async def _hear(http: aiohttp.ClientSession, url: str, number: int) -> str:
    """What one of a crowd hears; every second one streams."""
    content = body(f"{number}: one of many", CROWD_TOKENS)
    try:
        if number % 2 == 0:
            return (
                WHOLE
                if (await chat(http, url, content)).tokens == CROWD_TOKENS
                else "too few tokens"
            )
        del content["stream"], content["stream_options"]
        async with http.post(url + PATH, json=content) as reply:
            text = await reply.text()
            if reply.status != 200:
                return f"{reply.status}" if text else f"{reply.status} without a word"
            return (
                WHOLE
                if json.loads(text)["usage"]["completion_tokens"] == CROWD_TOKENS
                else "too few tokens"
            )
    except RefusedError as error:
        return f"{error.status}" if error.body else f"{error.status} without a word"
    except StreamError as error:
        return IN_STREAM if FULL in str(error) else f"{error}"
    except (*BROKEN, ValueError, LookupError) as error:
        return f"{type(error).__name__}: {error}"


def crowd_seen(heard: Counter[str], again: bool, probes: Counter[str]) -> Seen:
    """What became of a crowd.

    Args:
        heard: how many heard what.
        again: whether a chat was answered afterwards.
        probes: answers, by path and status.
    """
    proper = (WHOLE, *REFUSALS, IN_STREAM)
    wrong = [f"{number} x {said}"[:150] for said, number in heard.items() if said not in proper]
    if heard[WHOLE] < QUEUED:
        wrong.append(f"{heard[WHOLE]} answered, though {QUEUED} may wait")
    if not again:
        wrong.append("no answer when the crowd had gone")
    wrong += [f"probe {said}" for said in probes if not said.endswith(" ok")]
    what = ", ".join(f"{heard[said]} x {said}" for said in proper if heard[said])
    known = (f"a stream that finds the queue full: {IN_STREAM}",) if heard[IN_STREAM] else ()
    return Seen(
        f"{heard.total()} requests: {what}; {probes.total()} probes answered", tuple(wrong), known
    )
