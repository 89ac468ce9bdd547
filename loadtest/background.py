"""Streamed chats that go on while something else is watched: pictures, and the dashboard's data."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from loadtest import lengths, workload
from loadtest.client import chat, session

MODEL = "demo"
TENANT = workload.Tenant(
    "background", prompt=lengths.Fixed(24), output=lengths.LogNormal(64, 0.5, 16, 200)
)


@contextmanager
def chatting(
    url: str, chats: int, name: str = "", extra: Mapping[str, Any] | None = None
) -> Iterator[None]:
    """Keep `chats` streamed chats going against a server, from a thread, until the block ends.

    Args:
        name: draws other prompts; whatever is asked at the same time under another name differs.
        extra: added to each request's body, such as `custom_params`.

    Raises:
        ExceptionGroup: chats were not answered; raised when the block ends.
    """
    enough = threading.Event()
    failed: list[BaseException] = []

    async def user(number: int) -> None:
        asks = 0
        async with session() as http:
            while not enough.is_set():
                ask = next(workload.conversation(TENANT, 1, f"{name}{number}", asks))
                await chat(http, url, ask.body(MODEL, **(extra or {})))
                asks += 1

    async def users() -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(chats):
                group.create_task(user(number))

    def run() -> None:
        try:
            asyncio.run(users())
        except BaseException as error:  # raised where the block ends
            failed.append(error)

    thread = threading.Thread(target=run, name="chats")
    thread.start()
    try:
        yield
    finally:
        enough.set()
        thread.join()
    if failed:
        raise failed[0]
