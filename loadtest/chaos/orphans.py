"""The process that serves HTTP is killed, as the kernel does when memory runs out: what becomes of
the others."""

from __future__ import annotations

import asyncio
import contextlib
import time
from tempfile import TemporaryDirectory

import psutil  # type: ignore[import-untyped]

from loadtest.chaos import operators, traces
from loadtest.chaos.arena import BYSTANDERS, DEADLINE, PROMPTS, TOKENS, Arena, body, server
from loadtest.chaos.fatal import LONG, wait
from loadtest.chaos.outcome import BROKE, HELD, Outcome, Seen, left_of, said_of
from loadtest.client import BROKEN, chat, session
from oea_server.client.server import Server

WORKERS = 2
MEETINGS = 4
"""Times that two operators meet: each has a connection, so that it is chance whether they meet on
one worker."""
WORKER_PATIENCE = 90.0
"""Seconds for a new worker to come up: it imports SGLang anew."""


async def killed_launcher() -> Outcome:
    """SIGKILL to the launcher amid streams: all others end, and the same can be started again at
    once."""
    with TemporaryDirectory(prefix="chaos-") as folder:
        running = server(environment={"TMPDIR": folder})
        return await _kill_and_start("kill -9 of the HTTP process", running, folder)


async def killed_worker() -> Outcome:
    """SIGKILL to each of two HTTP workers: the other goes on, and it is replaced. Then to the
    launcher."""
    with TemporaryDirectory(prefix="chaos-") as folder:
        running = server("--tokenizer-worker-num", str(WORKERS), environment={"TMPDIR": folder})
        return await _kill_and_start(
            "kill -9 of each HTTP worker, then of their parent", running, folder, True
        )


async def _kill_and_start(name: str, running: Server, folder: str, worker: bool = False) -> Outcome:
    began = time.monotonic()
    try:
        await asyncio.to_thread(running.start)
        seen = await _replaced(running) if worker else Seen("")
        orphaned = await _orphaned(running)
        wrong = [*seen.wrong, *orphaned.wrong]
        again = await _again(running)
        wrong += [] if again.startswith("started") else [again]
    finally:
        await asyncio.to_thread(running.stop)
        traces.clear(running)
    return Outcome(
        name,
        f"{seen.what}{orphaned.what}; {again}",
        "–",
        "had to end with its launcher" + said_of(orphaned.known),
        left_of(wrong),
        BROKE if wrong else HELD,
        tuple(wrong),
        time.monotonic() - began,
    )


async def _again(running: Server) -> str:
    """What comes of another start in the same place: the same port, the same folders."""
    try:
        await asyncio.to_thread(running.start)
        async with session(timeout=DEADLINE) as http:
            stream = await chat(http, running.url, body(PROMPTS[0], TOKENS))
    except (RuntimeError, *BROKEN) as error:
        return f"not started again: {str(error).splitlines()[-1][:150]}"
    return f"started again in the same place, {stream.tokens} tokens"


async def _orphaned(running: Server) -> Seen:
    """Kill the launcher amid streams: what clients saw, what was left."""
    assert running.process is not None
    shared = await asyncio.to_thread(traces.shared_memory, running)
    async with session(timeout=2 * DEADLINE) as http:
        streams = [
            asyncio.create_task(chat(http, running.url, body(prompt, LONG))) for prompt in PROMPTS
        ]
        await asyncio.sleep(2.0)
        start = time.monotonic()
        running.process.kill()
        _, hanging = await asyncio.wait(streams, timeout=DEADLINE)
        seconds = time.monotonic() - start
        for stream in hanging:
            stream.cancel()
        results = await asyncio.gather(*streams, return_exceptions=True)
    await asyncio.to_thread(wait, running, DEADLINE)
    wrong = [f"{len(hanging)} streams hung for {DEADLINE:.0f} s"] if hanging else []
    left, known = traces.apart(await asyncio.to_thread(traces.left, running, shared))
    traces.clear(running)
    errors = {type(each).__name__ for each in results if isinstance(each, BROKEN)}
    what = f"streams ended after {seconds:.1f} s ({', '.join(sorted(errors)) or 'whole'})"
    return Seen(what, (*wrong, *left), tuple(known))


async def _replaced(running: Server) -> Seen:
    """Kill the workers amid streams, one after the other: the last chats can only be of those that
    came for them."""
    arena = Arena(running, None, None)
    await arena.learn()
    raced = [await operators.two_operators(arena) for _ in range(MEETINGS)]
    wrong, cut, answered, first = (
        [line for each in raced for line in each.wrong],
        0,
        0,
        workers(running),
    )
    if len(first) != WORKERS:
        return Seen("", (*wrong, f"{len(first)} workers at the start"))
    for worker in first:
        async with session(timeout=2 * DEADLINE) as http:
            streams = [
                asyncio.create_task(chat(http, running.url, body(prompt, TOKENS)))
                for prompt in PROMPTS * 2
            ]
            await asyncio.sleep(0.5)
            worker.kill()
            results = await asyncio.gather(*streams, return_exceptions=True)
        cut += sum(isinstance(each, BROKEN) for each in results)
        deadline = time.monotonic() + WORKER_PATIENCE
        while len(set(workers(running)) - {worker}) < WORKERS and time.monotonic() < deadline:
            await asyncio.sleep(1.0)
        whole, problems = await _all_answered(arena, deadline)
        answered, wrong = answered + whole, wrong + problems
        if len(set(workers(running)) - {worker}) < WORKERS:
            wrong.append(f"no new worker after {WORKER_PATIENCE:.0f} s")
    again = await operators.two_operators(arena)
    what = (
        f"{raced[-1].what}, {MEETINGS} times; {WORKERS} workers killed: of {2 * len(results)}"
        f" streams {cut} cut"
    )
    return Seen(
        f"{what}, then {answered} chats whole; ", tuple(dict.fromkeys([*wrong, *again.wrong]))
    )


async def _all_answered(arena: Arena, deadline: float) -> tuple[int, list[str]]:
    """A dozen chats in a row, each on a connection of its own, so that all workers get some."""
    answered, wrong = 0, list[str]()
    while answered < 12:
        try:
            async with session(timeout=DEADLINE) as http:
                stream = await chat(http, arena.url, body(PROMPTS[answered % BYSTANDERS], TOKENS))
        except BROKEN as error:
            if time.monotonic() > deadline:
                return answered, [
                    f"a chat after the worker's end: {type(error).__name__}: {error}"[:150]
                ]
            answered = 0
            await asyncio.sleep(1.0)
            continue
        if stream.text != arena.expected[answered % BYSTANDERS]:
            wrong.append("an answer is another than before")
        answered += 1
    return answered, list(dict.fromkeys(wrong))


def workers(running: Server) -> list[psutil.Process]:
    """Processes that listen at the server's port, the launcher's children."""
    assert running.process is not None
    return [
        each
        for each in psutil.Process(running.process.pid).children()
        if _listens(each, running.port)
    ]


def _listens(process: psutil.Process, port: int) -> bool:
    with contextlib.suppress(psutil.Error):
        return any(
            each.status == psutil.CONN_LISTEN and each.laddr.port == port
            for each in process.net_connections("tcp")
        )
    return False
