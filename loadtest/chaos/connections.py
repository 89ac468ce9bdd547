"""Faults that are in how a client treats its connections."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import struct
import time

import aiohttp

from loadtest import watch
from loadtest.chaos.arena import KEY, Arena, body
from loadtest.chaos.outcome import Seen
from loadtest.client import BROKEN, PATH, chat, session

SLOW_READERS, SLOW_TOKENS, SLOW_SECONDS = 4, 400, 6.0
HALF_OPEN, HALF_OPEN_SECONDS = 100, 8.0
STORM = 200
SCRAPERS, SCRAPE_SECONDS = 16, 8.0
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER for a close that is a reset."""


def raw_request(key: str | None, content: dict[str, object]) -> bytes:
    """A chat request as bytes, for sockets that are ill-treated."""
    data = json.dumps(content).encode()
    head = (
        f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection:"
        " close\r\n"
    )
    return (
        f"{head}Authorization: Bearer {key}\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data
    )


async def slow_readers(arena: Arena) -> Seen:
    """Streams whose clients read nothing for seconds, with the smallest buffers there are, and then
    everything."""
    loop, wrong = asyncio.get_running_loop(), list[str]()
    opened = []
    for number in range(SLOW_READERS):
        one = socket.socket()
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        one.setblocking(False)
        await loop.sock_connect(one, ("127.0.0.1", arena.port))
        await loop.sock_sendall(one, raw_request(arena.key, body(f"{number}: slow", SLOW_TOKENS)))
        opened.append(one)
    await asyncio.sleep(SLOW_SECONDS)
    for one in opened:
        read = b""
        while part := await loop.sock_recv(one, 1 << 16):
            read += part
        one.close()
        if b"data: [DONE]" not in read:
            wrong.append(f"a slow reader's stream was cut after {len(read)} bytes")
    return Seen(
        f"{SLOW_READERS} streams, {SLOW_READERS - len(wrong)} whole after {SLOW_SECONDS:.0f} s",
        tuple(wrong),
    )


async def half_open(arena: Arena) -> Seen:
    """Connections that say nothing, half a request, or a whole one and are reset before the
    answer."""
    loop = asyncio.get_running_loop()
    whole = raw_request(arena.key, body("half", 100))
    opened = []
    for number in range(HALF_OPEN):
        one = socket.socket()
        one.setblocking(False)
        await loop.sock_connect(one, ("127.0.0.1", arena.port))
        await loop.sock_sendall(one, (b"", whole[:60], whole[:-20], whole)[number % 4])
        opened.append(one)
    await asyncio.sleep(HALF_OPEN_SECONDS / 2)
    async with session(arena.key) as http:
        await chat(http, arena.url, body("and in between?", 8))
    await asyncio.sleep(HALF_OPEN_SECONDS / 2)
    for one in opened:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        one.close()
    return Seen(
        f"{HALF_OPEN} connections held for {HALF_OPEN_SECONDS:.0f} s and reset; a chat in between"
        " was answered"
    )


async def cancel_storm(arena: Arena) -> Seen:
    """Streams that are all abandoned, at any point from the start on; then the scheduler has to be
    idle."""
    dice = random.Random(0)
    async with session(arena.key) as http, asyncio.TaskGroup() as storm:

        async def one(number: int) -> None:
            await asyncio.sleep(dice.random() * 3)
            request = asyncio.create_task(chat(http, arena.url, body(f"{number}: storm", 300)))
            await asyncio.sleep(dice.random() * 2)
            request.cancel()
            await asyncio.gather(request, return_exceptions=True)

        for number in range(STORM):
            storm.create_task(one(number))
    start = time.monotonic()
    while True:
        running = (await asyncio.to_thread(watch.load, arena.url, arena.key))["num_running_reqs"]
        if running <= len(arena.expected):
            break
        await asyncio.sleep(0.2)
    freed = time.monotonic() - start
    return Seen(f"{STORM} streams abandoned; all out of the batch {freed:.1f} s later")


async def hard_scrapes(arena: Arena) -> Seen:
    """/metrics and /oea/stats, again and again, by many at once."""
    counts, wrong = [0], list[str]()
    until = time.monotonic() + SCRAPE_SECONDS

    async def scrape(http: aiohttp.ClientSession, path: str) -> None:
        while time.monotonic() < until:
            try:
                async with http.get(arena.url + path) as reply:
                    text = await reply.text()
                    if reply.status != 200 or not text:
                        wrong.append(f"{path}: {reply.status}")
            except BROKEN as error:
                wrong.append(f"{path}: {type(error).__name__}")
                return
            counts[0] += 1

    async with session(KEY) as http:
        await asyncio.gather(
            *(scrape(http, ("/metrics", "/oea/stats")[i % 2]) for i in range(SCRAPERS))
        )
    return Seen(
        f"{counts[0] / SCRAPE_SECONDS:.0f} scrapes a second by {SCRAPERS}",
        tuple(dict.fromkeys(wrong)),
    )
