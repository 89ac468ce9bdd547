"""Requests of a soak: good ones, bad ones and abandoned ones, and how each ended."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Iterator
from typing import Any

import aiohttp

from loadtest import lengths, workload
from loadtest.client import BROKEN, PATH, RefusedError, chat, session

TENANT = workload.Tenant(
    "soak", prompt=lengths.LogNormal(24, 0.7, 4, 200), output=lengths.LogNormal(12, 0.7, 2, 64)
)
CONCURRENCY = (16, 32, 64)
KINDS = {"stream": 80.0, "whole": 8.0, "cancel": 6.0, "bad": 6.0}
"""Shares: a streamed answer, one in one piece, one that its client abandons, one that has to be
refused."""
MESSAGES = [{"role": "user", "content": "hello"}]
BAD: tuple[tuple[str, bytes | dict[str, Any]], ...] = (
    ("cut JSON", b'{"model": "demo", "messages": ['),
    ("no messages", {"model": "demo"}),
    ("messages of a wrong type", {"model": "demo", "messages": 3}),
    ("max_tokens of a wrong type", {"model": "demo", "messages": MESSAGES, "max_tokens": "many"}),
    ("max_tokens below 0", {"model": "demo", "messages": MESSAGES, "max_tokens": -1}),
    (
        "a prompt beyond the context",
        {"model": "demo", "messages": [{"role": "user", "content": "word " * 9000}]},
    ),
)


class Soak:
    """A soak of a server.

    Args:
        seen: how requests ended; what was not proper is in `broken`, with examples.
    """

    def __init__(self, url: str, seed: int) -> None:
        self.url, self.seed = url, seed
        self.seen: Counter[str] = Counter()
        self.broken: Counter[str] = Counter()
        self.tokens = self.done = 0
        self._numbers = itertools.count()

    def play(self, count: int) -> None:
        """So many requests, at each of the concurrencies in turn."""
        for chats, share in zip(CONCURRENCY, shares(count, len(CONCURRENCY)), strict=True):
            print(f"{share} requests, {chats} at once", flush=True)
            asyncio.run(self._play(itertools.islice(self._numbers, share), chats))

    async def _play(self, numbers: Iterator[int], chats: int) -> None:
        async with session() as http, asyncio.TaskGroup() as users:

            async def user() -> None:
                for number in numbers:
                    await self._one(http, number)
                    self.done += 1

            for _ in range(chats):
                users.create_task(user())

    async def _one(self, http: aiohttp.ClientSession, number: int) -> None:
        dice = workload.dice(self.seed, "kind", number)
        kind = dice.choices(list(KINDS), list(KINDS.values()))[0]
        try:
            if kind == "bad":
                name, body = BAD[number % len(BAD)]
                self._count(*await refused(http, self.url, name, body))
                return
            ask = next(workload.conversation(TENANT, self.seed, "soak", number))
            if kind == "whole":
                self._count(*await answered(http, self.url, ask))
                return
            cancel_after = dice.randrange(ask.tokens) if kind == "cancel" else None
            stream = await chat(http, self.url, ask.body("demo"), cancel_after)
            if cancel_after is None and stream.tokens != ask.tokens:
                self._count("broken", f"asked for {ask.tokens} tokens, got {stream.tokens}")
            else:
                self._count("answered" if stream.done else "cancelled")
                self.tokens += stream.tokens if stream.done else 0
        except BROKEN as error:
            self._count("broken", f"{kind}: {type(error).__name__}: {error}"[:200])

    def _count(self, ending: str, why: str = "") -> None:
        self.seen[ending] += 1
        if ending == "broken":
            self.broken[why] += 1


async def refused(
    http: aiohttp.ClientSession, url: str, name: str, body: bytes | dict[str, Any]
) -> tuple[str, str]:
    """Send what has to be refused: with a 4xx, and a body that says why."""
    given: dict[str, Any] = {"data": body} if isinstance(body, bytes) else {"json": body}
    async with http.post(
        url + PATH, headers={"Content-Type": "application/json"}, **given
    ) as reply:
        text = await reply.text()
        if 400 <= reply.status < 500 and text:
            return "refused", ""
        return "broken", f"{name}: {reply.status}: {text[:100]}"


async def answered(http: aiohttp.ClientSession, url: str, ask: workload.Ask) -> tuple[str, str]:
    """An answer in one piece."""
    body = {name: value for name, value in ask.body("demo").items() if name not in workload.BODY}
    async with http.post(url + PATH, json=body) as reply:
        if reply.status != 200:
            raise RefusedError(reply.status, await reply.text())
        answer = await reply.json()
    got = answer["usage"]["completion_tokens"]
    return (
        ("answered", "")
        if got == ask.tokens
        else ("broken", f"asked for {ask.tokens} tokens, got {got}")
    )


def shares(count: int, parts: int) -> list[int]:
    """As even as they can be."""
    return [count // parts + (i < count % parts) for i in range(parts)]
