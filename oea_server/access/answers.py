"""What the door sends by itself, and how it reads what the app behind it sends."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

from oea_server.access.mask import FIELDS, masked

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


async def refuse(scope: Scope, send: Send, status: int, problem: str) -> None:
    """Answer with one line, ``{"error": problem}``; close a websocket before it is open."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    body = json.dumps({"error": problem}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"x-content-type-options", b"nosniff"),
        (b"cache-control", b"no-store"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def masking(send: Send, keys: Sequence[str]) -> Send:
    """A `send` that masks the keys in an answer of JSON before it goes out; any other goes
    through."""
    start: Message | None = None
    body = b""

    async def masked_send(message: Message) -> None:
        nonlocal start, body
        if message["type"] == "http.response.start" and _is_json(message):
            start = message
            return
        if start is None or message["type"] != "http.response.body":
            await send(message)
            return
        body += message.get("body", b"")
        if message.get("more_body", False):
            return
        await _send_masked(send, start, body, keys)

    return masked_send


async def _send_masked(send: Send, start: Message, body: bytes, keys: Sequence[str]) -> None:
    if clean := _masked(body, keys):
        body = clean
        others = [each for each in start["headers"] if each[0].lower() != b"content-length"]
        start = {**start, "headers": [*others, (b"content-length", str(len(body)).encode())]}
    await send(start)
    await send({"type": "http.response.body", "body": body})


def _masked(body: bytes, keys: Sequence[str]) -> bytes | None:
    """A body without its secrets; None if it holds none."""
    secret = [*(json.dumps(key)[1:-1] for key in keys), *FIELDS]
    if not any(each.encode() in body for each in secret):  # most are large, and have none
        return None
    try:
        value = json.loads(body)
    except ValueError:  # cut off
        return None
    return json.dumps(masked(value, keys)).encode()


def _is_json(start: Message) -> bool:
    types = [value for name, value in start.get("headers", ()) if name.lower() == b"content-type"]
    return any(value.startswith(b"application/json") for value in types)


async def status(app: App, scope: Scope, body: bytes = b"") -> int:
    """The status that an app answers a request with, in this process, without a socket."""
    said: list[int] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            said.append(message["status"])

    await app(scope, receive, send)
    return said[0]
