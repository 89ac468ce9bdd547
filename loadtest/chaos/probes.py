"""What looks after a server, and has to be answered whatever else is asked of it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp

from loadtest.client import BROKEN, session

PROBES = ("/health", "/metrics", "/oea/config")
PROBE_TIMEOUT = 10.0
"""Seconds, as a kubelet might wait."""
HEALTH = Path(__file__).parents[2] / "deploy/docker/health.py"


@contextlib.asynccontextmanager
async def probing(url: str, key: str | None) -> AsyncIterator[Counter[str]]:
    """Ask what looks after a server asks, again and again: /health, /metrics, the knobs, the
    image's health check."""
    seen, over = Counter[str](), asyncio.Event()

    async def ask(http: aiohttp.ClientSession, path: str) -> None:
        while True:
            try:
                async with http.get(url + path) as reply:
                    text = await reply.text()
                    said = (
                        "ok"
                        if reply.status == 200 and (text or path == "/health")
                        else str(reply.status)
                    )
            except BROKEN as error:
                said = type(error).__name__
            seen[f"{path} {said}"] += 1
            if over.is_set():
                return
            await asyncio.sleep(0.5)

    async def check() -> None:
        while True:
            environment = {**os.environ, "OEA_URL": url}
            process = await asyncio.create_subprocess_exec(
                sys.executable, str(HEALTH), env=environment, stdout=asyncio.subprocess.DEVNULL
            )
            seen[f"health.py {'ok' if await process.wait() == 0 else 'failed'}"] += 1
            if over.is_set():
                return
            await asyncio.sleep(1.0)

    async with session(key, timeout=PROBE_TIMEOUT) as http, asyncio.TaskGroup() as all_of_them:
        for path in PROBES:
            all_of_them.create_task(ask(http, path))
        all_of_them.create_task(check())
        try:
            yield seen
        finally:
            over.set()
