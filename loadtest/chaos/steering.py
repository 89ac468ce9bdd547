"""Faults in how the server is steered: too often, wrongly, by the wrong people."""

from __future__ import annotations

import asyncio
import time

from loadtest.chaos.arena import ADMIN_KEY, KEY, Arena, body
from loadtest.chaos.bodies import post
from loadtest.chaos.outcome import Seen
from loadtest.client import BROKEN, PATH, chat, session

CHANGES = 150
FLAPPED = (
    {"k0": "3"},
    {"k0": "1:8,2:6", "share": "2:0.1", "mix": "0.5", "max_rank": 16},
    {"k0": "auto", "share": "auto", "mix": "auto", "max_rank": None},
    {"min_batch": 4},
)
REFUSED = (
    {"k0": "99", "min_batch": 7},
    {"policy": "none such"},
    {"k0": "3", "nonsense": 1},
    {"k_max": -1},
)
"""Each has a part that is wrong; so that nothing of it may be applied."""
NOT_ASCII = "kéy"
WRONG_KEYS = (None, "", "wrong", "x" * 8000, NOT_ASCII)
POLICIES = ("vanilla", "oea", "shadow")


async def flapping(arena: Arena) -> Seen:
    """Changes one after the other, every third refused, while other chats are streamed. What is in
    force at the end has to be what was last accepted. The policy stays vanilla, under which no
    other knob may change an answer."""
    start = arena.reader.config()["settings"]
    wrong = list[str]()
    began = time.monotonic()
    async with session(ADMIN_KEY) as http:
        expected = dict(start)
        for number in range(CHANGES):
            refuse = number % 3 == 2
            knobs = (REFUSED if refuse else FLAPPED)[number // 3 % 4]
            async with http.put(f"{arena.url}/oea/config", json=knobs) as reply:
                text = await reply.text()
                if refuse != (400 <= reply.status < 500):
                    wrong.append(f"{knobs}: {reply.status}: {text[:80]}")
            expected |= {} if refuse else knobs
            if number % 10 == 9 and (now := await asyncio.to_thread(_settings, arena)) != expected:
                wrong.append(f"after {number + 1} changes: {now}, not {expected}")
        seconds = time.monotonic() - began
        async with http.put(f"{arena.url}/oea/config", json={**start}) as reply:
            if reply.status != 200:
                wrong.append(f"back to the start: {reply.status}")
    if (now := await asyncio.to_thread(_settings, arena)) != start:
        wrong.append(f"at the end: {now}, not {start}")
    return Seen(
        f"{CHANGES} changes in {seconds:.1f} s, a third of them refused, none half applied",
        tuple(wrong),
    )


async def policy_flapping(arena: Arena) -> Seen:
    """The policy changes all the time under streams that go on. Not with bystanders: their answers
    depend on it."""
    wrong, changes = list[str](), 0
    async with session(KEY) as reading, session(ADMIN_KEY) as http:
        streams = [
            asyncio.create_task(chat(reading, arena.url, body(f"{i}: flap", 200))) for i in range(8)
        ]
        while not all(stream.done() for stream in streams):
            policy = POLICIES[changes % len(POLICIES)]
            async with http.put(f"{arena.url}/oea/config", json={"policy": policy}) as reply:
                if reply.status not in (200, 409):
                    wrong.append(f"policy={policy}: {reply.status}: {(await reply.text())[:80]}")
            changes += 1
        for result in await asyncio.gather(*streams, return_exceptions=True):
            if isinstance(result, BROKEN):
                wrong.append(f"a stream broke: {result}")
            elif isinstance(result, BaseException):
                raise result
            elif result.tokens != 200:
                wrong.append(f"a stream of 200 tokens has {result.tokens}")
        async with http.put(f"{arena.url}/oea/config", json={"policy": "vanilla"}) as reply:
            if reply.status != 200:
                wrong.append(f"back to vanilla: {reply.status}")
    return Seen(f"{changes} changes of policy under 8 streams, all whole", tuple(wrong))


async def wrong_keys(arena: Arena) -> Seen:
    """No key, a wrong one, a long one, the lesser one: all refused, and nothing is changed."""
    wrong, known, refused = list[str](), list[str](), 0
    start = arena.reader.config()["settings"]
    async with session() as http:
        for key in WRONG_KEYS:
            headers = {} if key is None else {"Authorization": f"Bearer {key}"}
            for path, method, content in (
                (PATH, "POST", body("hello", 4)),
                ("/oea/config", "PUT", {"k0": "3"}),
                ("/oea/config", "GET", None),
            ):
                async with http.request(
                    method, arena.url + path, json=content, headers=headers
                ) as reply:
                    refused += 1
                    if reply.status == 500 and key == NOT_ASCII:
                        known.append("a key that is not ASCII: 500")
                    elif reply.status not in (400, 401, 403, 431):
                        wrong.append(f"{method} {path} with key {str(key)[:10]!r}: {reply.status}")
        async with http.put(
            f"{arena.url}/oea/config", json={"k0": "3"}, headers={"Authorization": f"Bearer {KEY}"}
        ) as reply:
            if reply.status != 401:
                wrong.append(f"a change with the key that only reads: {reply.status}")
    async with session(KEY) as http:
        status, text = await post(
            http, arena.url + PATH, json={**body("hello", 4), "stream": False}
        )
        if status != 200:
            wrong.append(f"the right key: {status}: {text[:80]}")
    if arena.reader.config()["settings"] != start:
        wrong.append("a knob was changed")
    what = f"{refused + 1} requests with wrong keys refused, the right one answered"
    return Seen(what, tuple(wrong), tuple(dict.fromkeys(known)))


def _settings(arena: Arena) -> dict[str, object]:
    settings: dict[str, object] = arena.reader.config()["settings"]
    return settings
