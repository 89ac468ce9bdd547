"""What is between a server and who asks it: proxies that nobody may go by, and addresses of
IPv6."""

from __future__ import annotations

import asyncio
import functools
import os
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

from deploy.docker import health
from loadtest.chaos.arena import DEADLINE, Arena, server
from loadtest.chaos.outcome import BROKE, Outcome, Seen, skipped
from loadtest.client import session
from oea_server.client.way import is_here

PAGES = ("/health", "/metrics", "/oea", "/oea/config", "/oea/stats", "/v1/models")
PATIENCE = 90.0
"""Seconds for all of it, two programs' starts included, on a busy machine."""


async def proxies() -> Outcome:
    """Proxies are set, in small and in capital letters, none exempt: whoever asks this machine must
    not go by them."""
    name = "proxies set, none exempt"
    async with _proxy() as (url, asked):
        variables = {
            each: url for scheme in ("http", "https", "all") for each in _cases(f"{scheme}_proxy")
        }
        variables |= dict.fromkeys(_cases("no_proxy"), "")
        with server(environment=variables) as running:
            arena = Arena(running, None, None)
            await arena.learn()
            outcome = await arena.bear(
                name, functools.partial(_ask_all, environment=variables), deadline=PATIENCE
            )
    if here := [line for line in asked if is_here(asked_for(line))]:
        why = (
            *outcome.why,
            f"the proxy was asked for this machine: {', '.join(dict.fromkeys(here))[:200]}",
        )
        return outcome._replace(verdict=BROKE, why=why)
    return outcome


def asked_for(line: str) -> str:
    """The host in the first line of what a proxy is asked."""
    target = [*line.split(), "", ""][1]
    return urlsplit(target if "://" in target else f"//{target}").hostname or ""


def _cases(name: str) -> tuple[str, str]:
    return name, name.upper()


@asynccontextmanager
async def _proxy() -> AsyncIterator[tuple[str, list[str]]]:
    """A proxy that is dead for whoever asks it, and what it was asked for."""
    asked = list[str]()

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readline()).decode(errors="replace").strip())
        writer.close()

    listening = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    async with listening:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}", asked


async def ipv6() -> Outcome:
    """The server listens on ::1 alone."""
    return await _listening("IPv6 alone (--host ::1)", "::1")


async def ipv6_any() -> Outcome:
    """It listens on ::, which is every address."""
    return await _listening("IPv6 on all addresses (--host ::)", "::")


async def _listening(name: str, host: str) -> Outcome:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind((host, 0))
    except OSError as error:
        return skipped(name, f"no IPv6 here: {error}")
    with server(host=host) as running:
        arena = Arena(running, None, None)
        await arena.learn()
        return await arena.bear(
            name, functools.partial(_ask_all, environment={}), deadline=PATIENCE
        )


async def _ask_all(arena: Arena, environment: Mapping[str, str]) -> Seen:
    """Every page, our client and the image's health check, which reads the command line to know
    where."""
    wrong = list[str]()
    async with session(timeout=DEADLINE) as http:
        for page in PAGES:
            async with http.get(arena.url + page) as reply:
                if reply.status != 200:
                    wrong.append(f"{page}: {reply.status}")
    command = Path(f"/proc/{arena.pid}/cmdline").read_text().split("\0")
    wrong += await _run(
        ("-m", "oea_server", "config", "get", "--url", arena.url), environment, '"policy"'
    )
    wrong += await _run((health.__file__,), {**environment, "OEA_URL": health.url(command)}, "200")
    return Seen(
        f"{len(PAGES)} pages, the client and the health check answered at {arena.url}", tuple(wrong)
    )


async def _run(
    arguments: tuple[str, ...], environment: Mapping[str, str], expected: str
) -> list[str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        env={**os.environ, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said = (await process.communicate())[0].decode(errors="replace")
    if process.returncode == 0 and expected in said:
        return []
    return [f"{' '.join(arguments[-4:])}: {process.returncode}: {said.strip()[-120:]}"]
