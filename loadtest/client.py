"""A streamed chat on asyncio, for the runs that steer a server themselves: A/B, soak and chaos."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, NamedTuple

import aiohttp

from loadtest.stream import Stream, StreamError
from loadtest.workload import Ask

PATH = "/v1/chat/completions"
KEEP = 2.0
"""Seconds that an idle connection is kept: SGLang closes it after 5, and a request that it meets
there is lost."""
TIMEOUT = 300.0
"""Seconds for a whole answer."""
BROKEN = (StreamError, aiohttp.ClientError, TimeoutError, ConnectionError)


class RefusedError(StreamError):
    """The server answered with another status than 200."""

    def __init__(self, status: int, body: str) -> None:
        super().__init__(f"{status}: {body[:300]}")
        self.status = status
        self.body = body


def session(
    key: str | None = None, timeout: float = TIMEOUT
) -> AbstractAsyncContextManager[aiohttp.ClientSession]:
    """As many connections as are asked for."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return aiohttp.ClientSession(
        headers=headers,
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP),
        timeout=aiohttp.ClientTimeout(total=timeout),
        read_bufsize=1 << 20,
    )


async def chat(
    http: aiohttp.ClientSession, url: str, body: Mapping[str, Any], cancel_after: int | None = None
) -> Stream:
    """Ask and read; `stream.done` is false if it was given up, after so many chunks of text.

    Raises:
        RefusedError: the server's status is not 200.
        StreamError: the answer is not whole.
        aiohttp.ClientError, TimeoutError: the connection broke, or the answer took too long.
    """
    stream = Stream(time.perf_counter(), int(body.get("max_tokens", 0)))
    await read(http, url, body, stream, cancel_after)
    return stream


async def read(
    http: aiohttp.ClientSession,
    url: str,
    body: Mapping[str, Any],
    stream: Stream,
    cancel_after: int | None = None,
) -> None:
    """`chat`, into a stream that whoever stops it keeps."""
    async with http.post(url + PATH, json=body, allow_redirects=False) as reply:
        if reply.status != 200:
            raise RefusedError(reply.status, await reply.text())
        texts = 0
        async for line in reply.content:
            if cancel_after is not None and texts >= cancel_after:
                reply.close()
                return
            texts += stream.line(line, time.perf_counter())
    stream.check()


class Block(NamedTuple):
    """Chats at a fixed concurrency, until all are answered."""

    streams: list[Stream]
    seconds: float

    @property
    def tokens_per_s(self) -> float:
        return sum(stream.tokens for stream in self.streams) / self.seconds


def play(
    url: str, asks: Iterable[Ask], chats: int, key: str | None = None, model: str = "default"
) -> Block:
    """Play a block, `chats` at once.

    Raises:
        StreamError, aiohttp.ClientError, TimeoutError: one was not answered.
    """
    return asyncio.run(_play(url, asks, chats, key, model))


async def _play(url: str, asks: Iterable[Ask], chats: int, key: str | None, model: str) -> Block:
    streams: list[Stream] = []
    waiting = iter(asks)
    async with session(key) as http:

        async def user() -> None:
            for ask in waiting:
                streams.append(await chat(http, url, ask.body(model)))

        start = time.perf_counter()
        async with asyncio.TaskGroup() as users:
            for _ in range(chats):
                users.create_task(user())
        return Block(streams, time.perf_counter() - start)
