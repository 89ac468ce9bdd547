"""Limits that a user's processes have: few open files, few processes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import shutil
import socket
import tempfile
import time

from loadtest import watch
from loadtest.chaos.arena import DEADLINE, PROMPTS, TOKENS, Arena, body, server
from loadtest.chaos.outcome import BROKE, HELD, Outcome, Seen, skipped
from loadtest.chaos.starting import not_started, start
from loadtest.client import BROKEN, chat, session
from oea_server.client.server import SERVE

FILES = 256
"""SGLang raises the soft limit, so that both are set."""
CROWD = 400
CROWD_SECONDS = 5.0
PROCESSES = (40, 400)
"""Too few for a server, whose threads count; and enough for one on a few cores."""
NOBODY = "nobody"
READS_ALL = ("--inh-caps=+dac_override", "--ambient-caps=+dac_override")
"""For a user who may not read where this Python lies."""


async def few_files() -> Outcome:
    """The server starts with few file handles; idle connections use them up; when they are gone,
    all is as before."""
    if shutil.which("prlimit") is None:
        return skipped(f"{FILES} open files", "needs prlimit")
    running = server(command=("prlimit", f"--nofile={FILES}:{FILES}", *SERVE))
    name = f"{FILES} open files, {CROWD} connections"
    try:
        if (ended := await start(running)) is not None:
            return not_started(name, ended)
        arena = Arena(running, None, None)
        await arena.learn()
        return await arena.bear(name, _crowd)
    finally:
        running.stop()


async def _crowd(arena: Arena) -> Seen:
    """More connections than there are handles, all idle. Afterwards new ones have to be
    answered."""
    assert arena.running.process is not None
    loop = asyncio.get_running_loop()
    opened = [socket.socket() for _ in range(CROWD)]
    mark = arena.running.log.stat().st_size
    try:
        for one in opened:
            one.setblocking(False)
            with contextlib.suppress(OSError, TimeoutError):
                await asyncio.wait_for(loop.sock_connect(one, ("127.0.0.1", arena.port)), 5.0)
        await asyncio.sleep(CROWD_SECONDS)
        used = watch.processes(arena.pid)["http"].num_fds()
    finally:
        for one in opened:
            one.close()
    began = time.monotonic()
    async with session(timeout=DEADLINE) as http:
        streams = await asyncio.gather(
            *(chat(http, arena.url, body(each, TOKENS)) for each in PROMPTS)
        )
    recovered = time.monotonic() - began
    wrong = [] if used >= FILES - 2 else [f"only {used} of {FILES} handles were used up"]
    if [each.text for each in streams] != arena.expected:
        wrong.append("answers changed")
    lines = arena.running.log.read_bytes()[mark:].count(b"\n")
    if lines > 20 * CROWD:
        wrong.append(f"{lines} lines logged")
    return Seen(
        f"all {used} handles used up; new chats whole {recovered:.1f} s after they were free",
        tuple(wrong),
    )


async def few_processes() -> Outcome:
    """An unprivileged user may have few processes and threads: the server starts and serves, or
    says that it cannot."""
    name = f"{' and '.join(map(str, PROCESSES))} processes"
    try:
        nobody = pwd.getpwnam(NOBODY)
    except KeyError:
        return skipped(name, f"no user {NOBODY}")
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        return skipped(
            name, "needs root, to start a server as another user: the limit does not hold for root"
        )
    with tempfile.TemporaryDirectory(prefix="loadtest-home-") as home:
        os.chown(home, nobody.pw_uid, nobody.pw_gid)
        user = (
            "setpriv",
            f"--reuid={nobody.pw_uid}",
            f"--regid={nobody.pw_gid}",
            "--clear-groups",
            *READS_ALL,
        )
        found = [await _with_processes(name, number, user, home) for number in PROCESSES]
    return Outcome(
        name,
        "; ".join(each.client_saw for each in found),
        "–",
        "; ".join(each.server_did for each in found),
        "; ".join(dict.fromkeys(each.leaked for each in found)),
        BROKE if any(each.why for each in found) else HELD,
        tuple(line for each in found for line in each.why),
        sum(each.seconds for each in found),
    )


async def _with_processes(name: str, number: int, user: tuple[str, ...], home: str) -> Outcome:
    environment = {"HOME": home, "TMPDIR": home}
    running = server(
        environment=environment, command=(*user, "prlimit", f"--nproc={number}:{number}", *SERVE)
    )
    began = time.monotonic()
    try:
        if (ended := await start(running)) is not None:
            return not_started(f"{number} processes", ended)
        async with session(timeout=DEADLINE) as http:
            results = await asyncio.gather(
                *(chat(http, running.url, body(each, TOKENS)) for each in PROMPTS),
                return_exceptions=True,
            )
    finally:
        running.stop()
    broken = [
        f"{number} processes: {type(each).__name__}" for each in results if isinstance(each, BROKEN)
    ]
    saw = f"{number}: {len(results) - len(broken)} of {len(results)} chats whole"
    verdict = BROKE if broken else HELD
    return Outcome(
        name, saw, "–", "served", "nothing", verdict, tuple(broken), time.monotonic() - began
    )
