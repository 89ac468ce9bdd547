"""Processes that stand still for a while and go on, as on a machine that swaps or is paused."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

import aiohttp

from loadtest import watch
from loadtest.chaos.arena import DEADLINE, Arena, body, server
from loadtest.chaos.operators import Reply, get, put
from loadtest.chaos.outcome import Outcome, Seen
from loadtest.client import BROKEN, chat, session
from oea_server.observe.applying import PATIENCE

STALL = PATIENCE + 4
"""Seconds: longer than a change waits."""
RANK_STALL = 12.0
GIVES_UP = 3.0
"""Seconds after which a client of a change leaves."""
LATE = 15.0
"""Seconds from the stop on when changes come that are answered in time."""
START, FIRST, GONE, NEXT, CAUTIOUS, LAST = 2, 3, 4, 5, 6, 7
"""Values of min_batch: under vanilla it changes no answer. Each change has its own, so that it can
be told apart."""


async def stalled_scheduler() -> Outcome:
    """The scheduler stands still for longer than a change waits, with changes before and in it."""
    with server() as running:
        arena = Arena(running, None, None)
        await arena.learn()
        return await arena.bear(
            "a scheduler stands still", _changes_meanwhile, deadline=STALL + 2 * DEADLINE
        )


async def _changes_meanwhile(arena: Arena) -> Seen:
    async with session(timeout=STALL + DEADLINE) as http:
        before = await put(http, arena.url, None, min_batch=START)
        async with stopped(arena, "scheduler"):
            first = asyncio.create_task(put(http, arena.url, None, min_batch=FIRST))
            await asyncio.sleep(0.5)
            gone = asyncio.create_task(_leave(arena, min_batch=GONE))
            await asyncio.sleep(LATE - 0.5)
            following = asyncio.create_task(put(http, arena.url, None, min_batch=NEXT))
            await asyncio.sleep(0.5)
            cautious = asyncio.create_task(put(http, arena.url, before.tag, min_batch=CAUTIOUS))
            health = await _status(http, arena.url + "/metrics")
            await asyncio.sleep(STALL - LATE - 0.5)
        replies = [await first, await following, await cautious]
        await gone
        after = await get(http, arena.url)
        stale = await put(http, arena.url, before.tag, min_batch=LAST)
        fresh = await put(http, arena.url, after.tag, min_batch=LAST)
        alive = await _status(http, arena.url + "/health")
    wrong = stall_wrong(before, replies, after)
    if health != "200":
        wrong.append(f"/metrics meanwhile: {health}")
    if (stale.status, fresh.status) != (412, 200):
        wrong.append(
            f"afterwards the old version's tag: {stale.status}, the new one's: {fresh.status}"
        )
    if alive != "200":
        wrong.append(f"/health afterwards: {alive}")
    answers = ", ".join(str(reply.status) for reply in replies)
    return Seen(f"{STALL:.0f} s; changes: {answers}, and one given up", tuple(wrong))


def stall_wrong(before: Reply, replies: Sequence[Reply], after: Reply) -> list[str]:
    """What is wrong with the changes that waited for a scheduler.

    Args:
        replies: of the one that waited longer than it may, of one that did not, of one that asked
            for `before`.
    """
    first, following, cautious = replies
    wrong = []
    if first.status != 504 or "nothing changed" not in first.body.get("error", ""):
        wrong.append(
            f"a change that waited {PATIENCE:.0f} s: {first.status} {first.body.get('error', '')}"[
                :150
            ]
        )
    if following.status != 200:
        wrong.append(
            f"a change that waited less: {following.status} {following.body.get('error', '')}"[:150]
        )
    if cautious.status != 412:
        wrong.append(f"a change of the version before: {cautious.status}")
    asked = int(before.body["settings"]["min_batch"])
    taken = [following.body["settings"]["min_batch"]] if following.status == 200 else []
    if following.status == 200 and following.body["changes"].get("min_batch") != [asked, NEXT]:
        wrong.append(f"an earlier change was applied, given up or not: {following.body['changes']}")
    if after.body["settings"]["min_batch"] not in (taken or [asked]):
        wrong.append(f"min_batch is {after.body['settings']['min_batch']}, which nobody was told")
    return wrong


async def stopped_rank() -> Outcome:
    """The second of two ranks stands still amid steps, and goes on: so do the streams, and the
    ranks still agree."""
    with server("--tp", "2", "--ep-size", "2") as running:
        arena = Arena(running, None, None)
        await arena.learn()
        return await arena.bear(
            "a rank stands still (TP2, EP2)", _change_meanwhile, deadline=RANK_STALL + 2 * DEADLINE
        )


async def _change_meanwhile(arena: Arena) -> Seen:
    async with session(timeout=RANK_STALL + DEADLINE) as http:
        before = await get(http, arena.url)
        streams = [
            asyncio.create_task(chat(http, arena.url, body(f"{i}: who waits?", 300)))
            for i in range(2)
        ]
        await asyncio.sleep(1.0)
        async with stopped(arena, "TP1"):
            change = asyncio.create_task(put(http, arena.url, before.tag, min_batch=NEXT))
            stats = await _status(http, arena.url + "/oea/stats")
            await asyncio.sleep(RANK_STALL)
            early = change.done() and change.result().status == 200
        changed = await change
        results = await asyncio.gather(*streams, return_exceptions=True)
        after = await get(http, arena.url)
    wrong = [f"a stream broke: {each}"[:150] for each in results if isinstance(each, BaseException)]
    if early:
        wrong.append("a change was taken without the rank that stood still")
    if changed.status != 200 or after.body["settings"]["min_batch"] != NEXT:
        wrong.append(
            f"a change: {changed.status}, min_batch is then {after.body['settings']['min_batch']}"
        )
    if not after.body["ranks_agree"]:
        wrong.append("the ranks no longer agree")
    if stats != "200":
        wrong.append(f"/oea/stats meanwhile: {stats}")
    broken = sum(isinstance(each, BaseException) for each in results)
    return Seen(
        f"{RANK_STALL:.0f} s; of {len(results)} streams {broken} cut; a change: {changed.status}",
        tuple(wrong),
    )


@contextlib.asynccontextmanager
async def stopped(arena: Arena, role: str) -> AsyncIterator[None]:
    """A process of the server stands still."""
    process = next(each for name, each in watch.processes(arena.pid).items() if role in name)
    process.suspend()
    try:
        yield
    finally:
        process.resume()


async def _leave(arena: Arena, **knobs: object) -> None:
    """Ask for a change and go away."""
    async with session(timeout=GIVES_UP) as http:
        with contextlib.suppress(TimeoutError):
            await put(http, arena.url, None, **knobs)


async def _status(http: aiohttp.ClientSession, url: str) -> str:
    try:
        async with http.get(url) as reply:
            return str(reply.status)
    except BROKEN as error:
        return type(error).__name__
