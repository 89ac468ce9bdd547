"""Faults that are in a request's body."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

import aiohttp

from loadtest.chaos.arena import Arena, body
from loadtest.chaos.outcome import Seen
from loadtest.client import PATH, chat, session

HELLO = [{"role": "user", "content": "hello"}]
ASKED = {"model": "demo", "messages": HELLO, "max_tokens": 4}

MALFORMED: Mapping[str, bytes] = {
    "cut": b'{"model": "demo", "messages": [',
    "nothing": b"",
    "no JSON": b"hello",
    "two": b"{}{}",
    "not UTF-8": b'{"model": "\xff\xfe"}',
    "a number": b"3",
    "null": b"null",
    "a NUL": b'{"model": "demo\x00"}',
    "deep": b'{"messages": ' + b"[" * 5000 + b"]" * 5000 + b"}",
}
WRONG_TYPES: Mapping[str, dict[str, Any]] = {
    "messages": {"messages": 3},
    "a message": {"messages": ["hello"]},
    "content": {"messages": [{"role": "user", "content": 3}]},
    "no role": {"messages": [{"content": "hello"}]},
    "no messages": {"messages": []},
    "max_tokens, a word": {"max_tokens": "many"},
    "max_tokens, below 0": {"max_tokens": -1},
    "temperature, a word": {"temperature": "hot"},
    "temperature, below 0": {"temperature": -1},
    "top_p, 2": {"top_p": 2},
    "stop, a number": {"stop": 3},
    "n, a word": {"n": "two"},
    "n, below 0": {"n": -1},
    "stream, a list": {"stream": [1]},
    "stop, a million": {"stop": ["x"] * 1_000_000},
    "logit_bias, no token": {"logit_bias": {"999999999": 1}},
}
KNOWN: Mapping[str, int] = {"a number": 500, "null": 500, "n, below 0": 200}
"""How SGLang answers what it should refuse."""
UNKNOWN: Mapping[str, dict[str, Any]] = {
    "a field": {"no_such_field": {"deep": [1, 2, 3]}},
    "in a message": {"messages": [{"role": "user", "content": "hello", "mood": "good"}]},
}
TEXTS: Mapping[str, str] = {
    "emoji": "👩‍👩‍👧‍👦🏳️‍🌈" * 20,
    "right to left": "שלום\u202eabc مرحبا",
    "combining": "e" + "\u0301" * 300,
    "NUL and controls": "a\x00b\x01\x1b[31m\x7f",
    "astral": "\U0001f600\U00010348\U0010ffff",
    "BOM and non-characters": "\ufeff\ufffe\uffff",
    "special tokens": "<|im_end|><|im_start|>system",
    "empty": "",
    "blanks": " \t\r\n\u2028\u00a0" * 50,
}
SURROGATE = (
    b'{"model": "demo", "max_tokens": 4, "messages": [{"role": "user", "content": "\\ud800'
    b' alone"}]}'
)
PROMPT_SIZES = (20_000, 1_000_000, 10_000_000)
"""Characters; the demo's context is 4096 tokens."""


async def malformed(arena: Arena) -> Seen:
    """Bodies that are no JSON, or no object."""
    return await _refused(arena, {name: ("data", content) for name, content in MALFORMED.items()})


async def wrong_types(arena: Arena) -> Seen:
    """JSON with fields of a wrong type or out of bounds."""
    return await _refused(
        arena, {name: ("json", {**ASKED, **change}) for name, change in WRONG_TYPES.items()}
    )


async def huge_prompts(arena: Arena) -> Seen:
    """Prompts beyond the context, up to 10 MB."""
    contents = {
        f"{size:,} characters": [{"role": "user", "content": "word " * (size // 5)}]
        for size in PROMPT_SIZES
    }
    return await _refused(
        arena, {name: ("json", {**ASKED, "messages": each}) for name, each in contents.items()}
    )


async def unknown_fields(arena: Arena) -> Seen:
    """Fields that nobody knows: SGLang ignores them, as the OpenAI schema's other servers do."""
    return await _answered(arena, {name: {**ASKED, **change} for name, change in UNKNOWN.items()})


async def unicode_edges(arena: Arena) -> Seen:
    """Prompts out of the corners of Unicode, streamed; and half a surrogate pair, which is no
    text."""
    asked = {
        name: {**ASKED, "messages": [{"role": "user", "content": text}]}
        for name, text in TEXTS.items()
    }
    seen = await _answered(arena, asked)
    async with session(arena.key) as http:
        status, _ = await post(http, arena.url + PATH, data=SURROGATE)
        for text in TEXTS.values():
            await chat(http, arena.url, body(text, 8))
    wrong = (*seen.wrong, *([f"half a surrogate pair: {status}"] if status >= 500 else []))
    return Seen(f"{seen.what}, streams whole; half a surrogate pair: {status}", wrong)


async def post(http: aiohttp.ClientSession, url: str, **content: Any) -> tuple[int, str]:
    """The status and the body."""
    # a 500 closes the connection: the next request must not be sent on it
    headers = {"Content-Type": "application/json", "Connection": "close"}
    async with http.post(url, headers=headers, **content) as reply:
        return reply.status, await reply.text()


async def _refused(arena: Arena, bodies: Mapping[str, tuple[str, Any]]) -> Seen:
    """Each has to be answered with a 4xx that says why."""
    statuses: Counter[int] = Counter()
    wrong, known = list[str](), list[str]()
    async with session(arena.key) as http:
        for name, (kind, content) in bodies.items():
            try:
                status, text = await post(http, arena.url + PATH, **{kind: content})
            except aiohttp.ClientError as error:
                wrong.append(f"{name}: {type(error).__name__}")
                continue
            statuses[status] += 1
            if KNOWN.get(name) == status:
                known.append(f"{name}: {status}")
            elif not 400 <= status < 500:
                wrong.append(f"{name}: {status}: {text[:80]}")
            elif not text:
                wrong.append(f"{name}: {status} without a word")
    return Seen(_counted(statuses), tuple(wrong), tuple(known))


async def _answered(arena: Arena, bodies: Mapping[str, dict[str, Any]]) -> Seen:
    """Each has to be answered."""
    statuses: Counter[int] = Counter()
    wrong = []
    async with session(arena.key) as http:
        for name, content in bodies.items():
            status, text = await post(http, arena.url + PATH, json=content)
            statuses[status] += 1
            if status != 200 or not json.loads(text)["choices"]:
                wrong.append(f"{name}: {status}: {text[:80]}")
    return Seen(_counted(statuses), tuple(wrong))


def _counted(statuses: Counter[int]) -> str:
    return ", ".join(f"{number} x {status}" for status, number in sorted(statuses.items()))
