"""Streamed chats at a fixed concurrency, by the official client, timed where a user would."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

from openai import AsyncOpenAI

from oea_server.client import chat

_number = itertools.count()


class Load(NamedTuple):
    """One round: all chats at once, each answered with the same number of tokens. Seconds."""

    ttft: list[float]
    """Time to first token, chat by chat."""
    tpot: list[float]
    """Time per output token after the first, chat by chat."""
    itl: list[float]
    """Gaps between two chunks of one chat; a chunk that waited for the client holds several
    tokens."""
    tokens_per_second: float


class Ask(NamedTuple):
    """What one chat asks for."""

    prompt: str
    temperature: float
    seed: int
    tier: str | None = None


def play(
    url: str,
    chats: int,
    tokens: int,
    key: str | None = None,
    asks: Callable[[int], Ask] | None = None,
) -> Load:
    """Play one round against a server.

    Args:
        asks: what the chat of that number in the round says; prompts that are never alike if not
            given, so that none is cached.
    """
    return asyncio.run(
        _play(url, tokens, key, [(asks or never_alike)(place) for place in range(chats)])
    )


def repetitive(place: int) -> Ask:
    """A prompt that is alike in each round, and greedy: a list that goes on as it began, so that
    n-grams can guess the rest."""
    words = " ".join(f"item {place} is like item {place}," for _ in range(12))
    return Ask(words, temperature=0.0, seed=place)


def never_alike(place: int) -> Ask:
    """Another prompt in each round, so that none is cached."""
    number = next(_number)
    return Ask(f"{number}: tell me about {number * 7919 % 10_007}", temperature=1.0, seed=number)


async def _play(url: str, tokens: int, key: str | None, asks: Sequence[Ask]) -> Load:
    chats = len(asks)
    async with chat.concurrent(url, key, timeout=600) as client:
        start = time.perf_counter()
        arrivals = await asyncio.gather(*(_chat(client, tokens, each) for each in asks))
        seconds = time.perf_counter() - start
    return Load(
        [times[1] - times[0] for times in arrivals],
        [(times[-1] - times[1]) / (tokens - 1) for times in arrivals],
        [after - before for times in arrivals for before, after in pairwise(times[1:])],
        chats * tokens / seconds,
    )


async def _chat(client: AsyncOpenAI, tokens: int, said: Ask) -> list[float]:
    """The times at which a chat was sent, and at which each chunk of its answer came."""
    times = [time.perf_counter()]
    stream = await client.completions.create(
        model="default",
        prompt=said.prompt,
        max_tokens=tokens,
        temperature=said.temperature,
        seed=said.seed,
        stream=True,
        extra_body={
            "ignore_eos": True,
            **({"custom_params": {"oea": {"tier": said.tier}}} if said.tier else {}),
        },
    )
    async for chunk in stream:
        # text may be empty while a character is incomplete; a chunk with choices is a step all the
        # same
        if chunk.choices and chunk.choices[0].finish_reason is None:
            times.append(time.perf_counter())
    times.append(time.perf_counter())
    return times
