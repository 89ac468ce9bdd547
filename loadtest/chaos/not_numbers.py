"""Weights that are no numbers: what a client hears of them, and what is shown of the server."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
import torch
from safetensors.torch import load_file, save_file

from loadtest.chaos.arena import DEADLINE, Arena, body, server
from loadtest.chaos.fatal import wait
from loadtest.chaos.outcome import BROKE, HELD, Outcome
from loadtest.chaos.starting import left, not_started, start
from loadtest.chaos.weights import WEIGHTS, copied
from loadtest.client import BROKEN, PATH, session
from oea_server.client.server import Server

ROUTER, HEAD = "model.layers.1.mlp.gate.weight", "lm_head.weight"
POLICIES = ("vanilla", "oea", "shadow", "pruned")
ASKED: tuple[dict[str, Any], ...] = (
    {},
    {"temperature": 1.0},
    {"logprobs": True, "top_logprobs": 3},
)
TOKENS = 24


def spoil(model: Path, tensor: str) -> None:
    """Make a weight of the copy no numbers."""
    weights = load_file(model / WEIGHTS)
    weights[tensor] = torch.full_like(weights[tensor], float("nan"))
    save_file(weights, model / WEIGHTS, {"format": "pt"})


async def router() -> Outcome:
    """A router's weights are NaN, so that its scores are: how many experts these choose is
    anybody's guess."""
    return await _spoilt("a router that yields NaN", ROUTER)


async def head() -> Outcome:
    """The last matrix is NaN, so that no token has a probability."""
    return await _spoilt("an output that is NaN", HEAD)


async def _spoilt(name: str, tensor: str) -> Outcome:
    with copied() as model:
        spoil(model, tensor)
        running = server("--model-path", str(model))
        try:
            ended = await start(running)
            return not_started(name, ended) if ended else await _ask(name, running)
        finally:
            running.stop()


async def _ask(name: str, running: Server) -> Outcome:
    """Chats of every kind under every policy: an answer or an error. What is shown of them has to
    stay numbers."""
    assert running.process is not None
    began, mark = time.monotonic(), running.log.stat().st_size
    arena = Arena(running, None, None)
    wrong, saw = list[str](), list[str]()
    async with session(timeout=DEADLINE) as http:
        try:
            for policy in POLICIES:
                async with http.put(f"{arena.url}/oea/config", json={"policy": policy}) as reply:
                    if reply.status != 200:
                        wrong.append(
                            f"policy={policy}: {reply.status}: {(await reply.text())[:80]}"
                        )
                for kind in ASKED:
                    saw.append(await _answer(http, arena, kind))
                await asyncio.sleep(1.5)
                wrong += await shown(http, arena, policy)
        except BROKEN as error:
            if await asyncio.to_thread(wait, running, DEADLINE) is None:
                wrong.append(f"{type(error).__name__}: {error}"[:200])
    code = running.process.poll()
    wrong += [
        f"a chat: {each}"
        for each in dict.fromkeys(saw)
        if not (each == "whole" or each.isdecimal() or code)
    ]
    running.stop()
    group = await asyncio.to_thread(left, running.process.pid)
    if group:
        wrong.append(f"left behind: {', '.join(group)}")
    did = arena.logged(mark) + (", runs" if code is None else f"; ended with {code}")
    what = ", ".join(f"{saw.count(each)} {each}" for each in dict.fromkeys(saw))
    leaked = ", ".join(group) or "nothing"
    return Outcome(
        name,
        what,
        "–",
        did,
        leaked,
        BROKE if wrong else HELD,
        tuple(wrong),
        time.monotonic() - began,
    )


async def _answer(http: aiohttp.ClientSession, arena: Arena, kind: Mapping[str, Any]) -> str:
    """How a chat ended. In one piece: its tokens need have no text."""
    content = {**body("what?", TOKENS), **kind, "stream": False, "stream_options": None}
    try:
        async with http.post(arena.url + PATH, json=content) as reply:
            text = await reply.text()
    except BROKEN as error:
        return type(error).__name__
    if reply.status != 200:
        return str(reply.status)
    try:
        answer = json.loads(text, parse_constant=_refuse)
    except ValueError as error:
        return str(error)
    return "whole" if answer["usage"]["completion_tokens"] == TOKENS else "cut"


async def shown(http: aiohttp.ClientSession, arena: Arena, policy: str) -> list[str]:
    """What is shown of the server that is no JSON, or no number."""
    wrong = list[str]()
    for path in ("/oea/stats", "/oea/config"):
        async with http.get(arena.url + path) as reply:
            text = await reply.text()
        try:
            json.loads(text, parse_constant=_refuse)
        except ValueError as error:
            wrong.append(f"policy={policy}: {path}: {error}"[:200])
    async with http.get(arena.url + "/metrics") as reply:
        lines = (await reply.text()).splitlines()
    bare = [
        line
        for line in lines
        if line.startswith("oea_") and not math.isfinite(float(line.rsplit(" ", 1)[1]))
    ]
    return wrong + ([f"policy={policy}: /metrics: {bare[0]}"] if bare else [])


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no JSON")
