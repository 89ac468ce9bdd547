"""Clients that leave while their long prompt is still being read."""

from __future__ import annotations

import asyncio
import random
import time

import aiohttp

from loadtest import watch
from loadtest.chaos.arena import Arena, body
from loadtest.chaos.outcome import Seen
from loadtest.client import PATH, chat, session

LEAVE, PROMPT, ANSWER = 16, 1100, 1000
"""Clients; words of a prompt (2.4 tokens each), tokens of an answer that nobody will read: 4096
tokens fit."""
STAYS = 3500
"""Tokens of the answer of one who stays: more steps than any of the others could need."""
MOMENTS = (0.05, 0.2, 0.6, 1.5)
"""Seconds after which they leave: most of them before anything is said."""


async def in_a_prefill(arena: Arena) -> Seen:
    """Half of them stream, half want all in one piece. What they asked for is given up long before
    it is answered."""
    async with session(arena.key) as http:
        patient = asyncio.create_task(chat(http, arena.url, body("who stays?", STAYS)))
        heard = await asyncio.gather(*(_leave(http, arena.url, number) for number in range(LEAVE)))
        left = time.monotonic()
        kept = len(arena.expected) + 1
        while (now := await asyncio.to_thread(watch.load, arena.url, arena.key))[
            "num_running_reqs"
        ] > kept or now["num_waiting_reqs"]:
            if patient.done():
                break
            await asyncio.sleep(0.2)
        seconds = time.monotonic() - left
        wrong = [each for each in heard if each.startswith("refused")]
        if patient.done():
            wrong.append("they were answered to the end, though nobody listened")
        patient.cancel()
        await asyncio.gather(patient, return_exceptions=True)
    what = (
        f"{LEAVE} left in a prefill of {PROMPT} words, {heard.count('nothing')} of them before the"
        " first byte"
    )
    return Seen(f"{what}; all out of the batch {seconds:.1f} s later", tuple(wrong))


async def _leave(http: aiohttp.ClientSession, url: str, number: int) -> str:
    """What it had heard when it left: nothing, something, or that it was refused."""
    dice = random.Random(number)
    words = " ".join(
        dice.choice(("expert", "router", "token", "batch", "layer")) for _ in range(PROMPT)
    )
    content = body(f"{number}: {words}", ANSWER) | {"stream": number % 2 == 0}
    if not content["stream"]:
        del content["stream_options"]
    heard = "nothing"

    async def ask() -> None:
        nonlocal heard
        async with http.post(url + PATH, json=content) as reply:
            if reply.status != 200:
                heard = f"refused: {reply.status}: {(await reply.text())[:80]}"
            async for _ in reply.content:
                heard = "something"

    asking = asyncio.create_task(ask())
    await asyncio.wait([asking], timeout=MOMENTS[number // 2 % len(MOMENTS)])
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    return heard
