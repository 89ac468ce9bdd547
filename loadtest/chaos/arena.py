"""A server that one client tries to break while others chat."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
from oea_server_demo import MODEL

from loadtest import watch
from loadtest.chaos.outcome import BROKE, HELD, Outcome, Seen, said_of
from loadtest.client import BROKEN, chat, session
from oea_server.client.remote import Remote
from oea_server.client.server import Server

KEY, ADMIN_KEY = "key", "admin-key"
DEADLINE = 30.0
"""Seconds in which a fault has to come to an end."""
BYSTANDERS = 3
TOKENS = 48
PROMPTS = tuple(f"{number}: what does an expert know?" for number in range(BYSTANDERS))
TROUBLE = re.compile(r"Traceback|ERROR|Error\b|Exception\b|[Ll]eak")
FLAGS = (
    # float32, vanilla: a greedy answer is the same whoever else is in the batch, so that it can be
    # compared
    *(
        "--dtype",
        "float32",
        "--oea-policy",
        "vanilla",
        "--max-total-tokens",
        "65536",
        "--random-seed",
        "1",
    ),
    *("--served-model-name", "demo"),
)


def server(
    *flags: str,
    environment: dict[str, str] | None = None,
    command: tuple[str, ...] = (),
    host: str = "127.0.0.1",
) -> Server:
    """A demo server for faults, not yet started."""
    model = ("--model-path", str(MODEL))
    return Server(*model, *FLAGS, *flags, environment=environment, command=command, host=host)


def body(prompt: str, tokens: int, **more: Any) -> dict[str, Any]:
    """A greedy streamed chat."""
    return {
        "model": "demo",
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
        **more,
    }


class Arena:
    """A running server with keys, and its bystanders.

    Args:
        running: its process is watched for leaks.
        expected: what the bystanders hear when nothing is wrong.
    """

    def __init__(
        self, running: Server, key: str | None = KEY, admin_key: str | None = ADMIN_KEY
    ) -> None:
        assert running.process is not None
        self.running, self.key, self.admin_key = running, key, admin_key
        self.url, self.port, self.pid = running.url, running.port, running.process.pid
        self.admin = Remote(self.url, admin_key)
        self.reader = Remote(self.url, key)
        self.expected: list[str] = []

    async def learn(self) -> None:
        """What the bystanders hear when nothing is wrong."""
        async with session(self.key) as http:
            self.expected = [
                (await chat(http, self.url, body(prompt, TOKENS))).text for prompt in PROMPTS
            ]

    async def bear(
        self,
        name: str,
        fault: Callable[[Arena], Awaitable[Seen]],
        alone: bool = False,
        deadline: float | None = None,
    ) -> Outcome:
        """Let a fault happen while the bystanders chat, and judge it.

        Args:
            alone: without bystanders, for faults that change everybody's answers.
            deadline: seconds in which it has to end, DEADLINE if not given.
        """
        deadline = deadline or DEADLINE
        before = await asyncio.to_thread(watch.held, self.url, self.pid, self.key, self.admin_key)
        mark = self.running.log.stat().st_size
        over = asyncio.Event()
        start = time.monotonic()
        async with session(self.key, timeout=2 * deadline) as http:
            bystanders = [
                asyncio.create_task(self._bystand(http, i, over))
                for i in range(0 if alone else BYSTANDERS)
            ]
            try:
                async with asyncio.timeout(deadline):
                    seen = await fault(self)
            except TimeoutError:
                seen = Seen("nothing", (f"not over after {deadline:.0f} s",))
            except (*BROKEN, OSError) as error:
                seen = Seen(f"{type(error).__name__}: {error}"[:100], ("the fault's client broke",))
            seconds = time.monotonic() - start
            over.set()
            heard = await asyncio.gather(*bystanders)
        wrong = [*seen.wrong, *(line for _, _, lines in heard for line in lines)]
        alive = self.running.process is not None and self.running.process.poll() is None
        leaks = ["the server ended"]
        if alive:
            after = await asyncio.to_thread(
                watch.held, self.url, self.pid, self.key, self.admin_key
            )
            leaks = watch.leaks(before, after)
        answers, gap = (
            sum(number for number, _, _ in heard),
            max((longest for _, longest, _ in heard), default=0.0),
        )
        return Outcome(
            name,
            seen.what + said_of(seen.known),
            "–" if alone else f"{answers} answers, longest gap {gap:.2f} s",
            self.logged(mark),
            ", ".join(leaks) or "nothing",
            BROKE if wrong or leaks else HELD,
            tuple(dict.fromkeys([*wrong, *leaks])),
            seconds,
        )

    async def _bystand(
        self, http: aiohttp.ClientSession, number: int, over: asyncio.Event
    ) -> tuple[int, float, list[str]]:
        """Ask the same again and again, once at least: answers, the longest gap within one (s),
        what was wrong."""
        answers, longest, wrong = 0, 0.0, list[str]()
        while not (answers and over.is_set()):
            try:
                stream = await chat(http, self.url, body(PROMPTS[number], TOKENS))
            except BROKEN as error:
                return (
                    answers,
                    longest,
                    [f"a bystander's stream broke: {type(error).__name__}: {error}"[:200]],
                )
            answers += 1
            longest = max(longest, *stream.gaps)
            if stream.text != self.expected[number]:
                wrong.append("a bystander's answer changed")
        return answers, longest, wrong

    def logged(self, mark: int) -> str:
        """Lines in the server's log since then that tell of trouble."""
        with self.running.log.open("rb") as log:
            log.seek(mark)
            lines = log.read().decode(errors="replace").splitlines()
        trouble = [line for line in lines if TROUBLE.search(line)]
        return (
            f"logged {len(trouble)} lines of trouble, first: {trouble[0][:120]}"
            if trouble
            else "went on"
        )
