"""Two operators who change the same server at the same moment."""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple

import aiohttp

from loadtest.chaos.arena import Arena
from loadtest.chaos.outcome import Seen
from loadtest.client import RefusedError, session

RACES = 30
FLOORS = (3, 4)
"""What each wants `min_batch` to be: under vanilla it changes no answer."""


class Reply(NamedTuple):
    """What one of them was told."""

    status: int
    tag: str
    body: dict[str, Any]


async def two_operators(arena: Arena) -> Seen:
    """Both change what both have read: one wins and the other is told. Without If-Match the last
    one wins."""
    wrong, won = list[str](), [0, 0]
    async with (
        session(arena.admin_key) as one,
        session(arena.admin_key) as two,
        session(arena.key) as reading,
    ):
        start = await get(reading, arena.url)
        for number in range(RACES):
            before = await get(reading, arena.url)
            cautious = number % 3 != 2
            tags = before.tag if cautious else None
            replies = await asyncio.gather(
                *(
                    put(http, arena.url, tags, min_batch=each)
                    for http, each in zip((one, two), FLOORS, strict=True)
                )
            )
            after = await get(reading, arena.url)
            wrong += (raced if cautious else both)(before, replies, after)
            won = [count + (reply.status == 200) for count, reply in zip(won, replies, strict=True)]
        late = await put(one, arena.url, start.tag, min_batch=2)
        back = await put(two, arena.url, None, min_batch=start.body["settings"]["min_batch"])
    if (late.status, back.status) != (412, 200):
        wrong.append(f"the first version's tag: {late.status}, none: {back.status}")
    return Seen(
        f"{RACES} races, {won[0]} and {won[1]} changes taken, the others 412",
        tuple(dict.fromkeys(wrong)),
    )


def raced(before: Reply, replies: list[Reply], after: Reply) -> list[str]:
    """What is wrong with two changes of one version, each if it is still that."""
    statuses = sorted(reply.status for reply in replies)
    if statuses != [200, 412]:
        return [f"two changes of one version: {' and '.join(map(str, statuses))}"]
    winner = next(reply for reply in replies if reply.status == 200)
    wrong = (
        []
        if after.body["settings"] == winner.body["settings"]
        else ["in force is not what was taken"]
    )
    if not before.tag != winner.tag == after.tag:
        wrong.append(
            f"version {before.tag}, then {winner.tag} for the winner and {after.tag} for all"
        )
    return wrong


def both(before: Reply, replies: list[Reply], after: Reply) -> list[str]:
    """What is wrong with two changes that ask for no version: both are taken, one after the
    other."""
    if any(reply.status != 200 for reply in replies):
        return [
            f"two changes without If-Match: {' and '.join(str(reply.status) for reply in replies)}"
        ]
    last = max(replies, key=lambda reply: int(reply.body["version"]))
    wrong = (
        []
        if after.body["settings"] == last.body["settings"]
        else ["in force is not what was taken last"]
    )
    if len({before.tag, *(reply.tag for reply in replies)}) != 3 or after.tag != last.tag:
        wrong.append(f"versions {before.tag}, {replies[0].tag}, {replies[1].tag}, then {after.tag}")
    return wrong


async def get(http: aiohttp.ClientSession, url: str) -> Reply:
    """The knobs and their version.

    Raises:
        RefusedError
    """
    async with http.get(f"{url}/oea/config") as reply:
        if reply.status != 200:
            raise RefusedError(reply.status, await reply.text())
        return Reply(reply.status, reply.headers.get("ETag", ""), await reply.json())


async def put(http: aiohttp.ClientSession, url: str, tag: str | None, **knobs: object) -> Reply:
    """A change; only of the version that `tag` names, if one does."""
    headers = {"If-Match": tag} if tag else {}
    async with http.put(f"{url}/oea/config", json=knobs, headers=headers) as reply:
        return Reply(reply.status, reply.headers.get("ETag", ""), await reply.json())
