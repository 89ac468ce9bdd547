"""Many answers at once, streamed, by the official client."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import openai
from openai import AsyncOpenAI

from oea_server.client import chat
from oea_server.lab.qualify.tasks import Task
from oea_server.oneline import oneline

SILENCE = 600.0
"""Seconds without a word from the server."""
LINE = 300


class AskingError(RuntimeError):
    """An answer did not come, or not whole; one line."""


class Manner(NamedTuple):
    """How all are asked.

    Args:
        max_tokens: of tasks that name none.
        completions: prompts as they are, without the chat's template.
    """

    model: str
    max_tokens: int
    temperature: float
    completions: bool


class Question(NamedTuple):
    """A task by its place in the file, and the seed of its answer."""

    place: int
    task: Task
    seed: int


class Answer(NamedTuple):
    """What came.

    Args:
        tokens: by the server's count, those of its reasoning with them.
        cut: it ended at max_tokens.
        seconds: from the request to the end.
        tpot: seconds per token after the first; None for one token.
    """

    text: str
    tokens: int
    cut: bool
    seconds: float
    tpot: float | None


def answers(
    url: str,
    key: str | None,
    manner: Manner,
    questions: Sequence[Question],
    at_once: int,
    done: Callable[[], None],
) -> list[Answer]:
    """The answers, in the questions' order, `at_once` at any time until no question is left.

    Raises:
        AskingError: one did not come, or not whole; the others are given up.
    """
    return asyncio.run(_answers(url, key, manner, questions, at_once, done))


async def _answers(
    url: str,
    key: str | None,
    manner: Manner,
    questions: Sequence[Question],
    at_once: int,
    done: Callable[[], None],
) -> list[Answer]:
    found: dict[int, Answer] = {}
    waiting = iter(enumerate(questions))
    async with chat.concurrent(url, key, timeout=SILENCE) as client:

        async def user() -> None:
            for number, question in waiting:
                try:
                    found[number] = await _one(client, manner, question)
                except openai.OpenAIError as error:
                    raise AskingError(
                        f"task {question.place + 1}: {oneline(str(error), LINE)}"
                    ) from None
                done()

        try:
            async with asyncio.TaskGroup() as users:
                for _ in range(at_once):
                    users.create_task(user())
        except* AskingError as several:
            raise several.exceptions[0] from None
    return [found[number] for number in range(len(questions))]


async def _one(client: AsyncOpenAI, manner: Manner, question: Question) -> Answer:
    sent = time.perf_counter()
    first = end = None
    texts, why, tokens = list[str](), None, 0
    async for chunk in await _stream(client, manner, question):
        now = time.perf_counter()
        for choice in chunk.choices:
            text, more = _said(choice)
            texts.append(text)
            first = now if first is None and (text or more) else first
            why, end = choice.finish_reason or why, now
        tokens = chunk.usage.completion_tokens if chunk.usage else tokens
    if why not in ("stop", "length") or not tokens or end is None:
        raise AskingError(
            f"task {question.place + 1}: the answer is not whole: finish_reason {why}, {tokens}"
            " tokens"
        )
    tpot = (end - first) / (tokens - 1) if first is not None and tokens > 1 else None
    return Answer("".join(texts), tokens, why == "length", end - sent, tpot)


async def _stream(client: AsyncOpenAI, manner: Manner, question: Question) -> Any:
    task = question.task
    body: dict[str, Any] = {
        "model": manner.model,
        "max_tokens": task.max_tokens or manner.max_tokens,
        "temperature": manner.temperature,
        "seed": question.seed,
        "stream": True,
        "stream_options": {"include_usage": True},
        **({"stop": task.stop} if task.stop else {}),
    }
    if manner.completions:
        return await client.completions.create(prompt=task.prompt, **body)
    return await client.chat.completions.create(messages=messages(task), **body)


def messages(task: Task) -> list[Any]:
    """A task as a chat."""
    if task.messages is not None:
        return task.messages
    said = {"role": "user", "content": task.prompt}
    return [said] if task.system is None else [{"role": "system", "content": task.system}, said]


def _said(choice: Any) -> tuple[str, str]:
    """A chunk's text, and its reasoning, which is not checked."""
    if hasattr(choice, "delta"):
        return choice.delta.content or "", getattr(choice.delta, "reasoning_content", None) or ""
    return choice.text or "", ""
