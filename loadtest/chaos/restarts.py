"""A restart that nobody should notice: two servers, one after the other ended and started again."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections import Counter
from typing import NamedTuple

import aiohttp

from loadtest.chaos import traces
from loadtest.chaos.arena import DEADLINE, PROMPTS, TOKENS, body, server
from loadtest.chaos.fatal import wait
from loadtest.chaos.outcome import BROKE, HELD, Outcome, left_of
from loadtest.client import BROKEN, RefusedError, chat, session
from oea_server.client.server import Server

CLIENTS = 4
QUIET = 3.0
"""Seconds of requests before each restart."""
PATIENCE = 120.0
"""Seconds that a client tries again for."""
NOT_BEGUN = (aiohttp.ClientConnectionError, TimeoutError)
"""What says that no answer was begun; a stream that breaks is a ClientPayloadError or
StreamError."""


class Balancer:
    """A list of addresses, those that are ready first: /health is asked each second, as a load
    balancer does."""

    def __init__(self, urls: list[str]) -> None:
        self.urls, self.ready = urls, list(urls)

    async def watch(self) -> None:
        async with session(timeout=5.0) as http:
            while True:
                states = await asyncio.gather(*(self._is_ready(http, url) for url in self.urls))
                self.ready = [url for url, ready in zip(self.urls, states, strict=True) if ready]
                await asyncio.sleep(1.0)

    def pick(self, number: int) -> str:
        among = self.ready or self.urls
        return among[number % len(among)]

    async def _is_ready(self, http: aiohttp.ClientSession, url: str) -> bool:
        try:
            async with http.get(f"{url}/health") as reply:
                return reply.status == 200
        except BROKEN:
            return False


class Tally(NamedTuple):
    """What the clients met.

    Args:
        answers: by the server's address.
        retries: by their reason.
        lost: requests that came to no whole answer, and why.
    """

    answers: Counter[str]
    retries: Counter[str]
    lost: list[str]


async def rolling() -> Outcome:
    """Both servers are restarted under load by SIGTERM, one after the other; each request ends in a
    whole answer."""
    one, two = server(), server()
    tally, wrong, over = Tally(Counter(), Counter(), []), list[str](), asyncio.Event()
    began = time.monotonic()
    with one, two:
        balancer = Balancer([one.url, two.url])
        async with session() as http:
            expected = [
                (await chat(http, one.url, body(prompt, TOKENS))).text for prompt in PROMPTS
            ]
            watching = asyncio.create_task(balancer.watch())
            clients = [
                asyncio.create_task(_client(http, balancer, i, expected, tally, over))
                for i in range(CLIENTS)
            ]
            ends = []
            for running in (one, two):
                await asyncio.sleep(QUIET)
                ended, problems = await _restart(running)
                ends.append(ended)
                wrong += problems
                before = tally.answers[running.url]
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(DEADLINE):
                        while tally.answers[running.url] == before:
                            await asyncio.sleep(0.2)
                if tally.answers[running.url] == before:
                    wrong.append(
                        f"no answer of the server that was started again on port {running.port}"
                    )
            over.set()
            await asyncio.gather(*clients)
            watching.cancel()
    wrong += dict.fromkeys(tally.lost)
    whole = tally.answers.total()
    again = ", ".join(f"{number} x {why}" for why, number in tally.retries.items()) or "none"
    return Outcome(
        "a rolling restart of two servers",
        f"{whole} of {whole + len(tally.lost)} requests whole; tried again: {again}",
        "–",
        "ended " + " and ".join(f"after {seconds:.1f} s" for seconds in ends),
        left_of(wrong),
        BROKE if wrong else HELD,
        tuple(wrong),
        time.monotonic() - began,
    )


async def _restart(running: Server) -> tuple[float, list[str]]:
    """SIGTERM, and the same again on the same port: seconds until it had ended, what was wrong."""
    assert running.process is not None
    shared = await asyncio.to_thread(traces.shared_memory, running)
    start = time.monotonic()
    running.process.send_signal(signal.SIGTERM)
    code = await asyncio.to_thread(wait, running, DEADLINE)
    ended = time.monotonic() - start
    wrong = (
        []
        if code == 0
        else [f"a server ended with {code}" if code is not None else f"runs after {ended:.0f} s"]
    )
    left, _ = traces.apart(await asyncio.to_thread(traces.left, running, shared))
    wrong += left
    await asyncio.to_thread(running.stop)
    await asyncio.to_thread(running.start)
    return ended, wrong


async def _client(
    http: aiohttp.ClientSession,
    balancer: Balancer,
    number: int,
    expected: list[str],
    tally: Tally,
    over: asyncio.Event,
) -> None:
    """Ask again and again."""
    asked = number
    while not over.is_set():
        asked += 1
        prompt = asked % len(PROMPTS)
        try:
            url, text = await _insist(
                http, balancer, asked, body(PROMPTS[prompt], TOKENS), tally.retries
            )
        except BROKEN as error:
            tally.lost.append(f"lost: {type(error).__name__}: {error}"[:150])
            continue
        tally.answers[url] += 1
        if text != expected[prompt]:
            tally.lost.append("an answer is another than before")


async def _insist(
    http: aiohttp.ClientSession,
    balancer: Balancer,
    number: int,
    content: dict[str, object],
    retries: Counter[str],
) -> tuple[str, str]:
    """Ask until somebody answers: where, and what.

    Raises:
        BROKEN: an answer was begun and broke, or was a refusal other than 503, or nobody answered
        in time.
    """
    deadline = time.monotonic() + PATIENCE
    while True:
        number += 1
        url = balancer.pick(number)
        try:
            return url, (await chat(http, url, content)).text
        except RefusedError as error:
            if error.status != 503 or time.monotonic() > deadline:
                raise
            retries["503"] += 1
        except NOT_BEGUN as error:
            if time.monotonic() > deadline:
                raise
            retries[type(error).__name__] += 1
        await asyncio.sleep(0.2)
