"""A request to an app without a server between: its body comes in parts, and says of its length
what a test likes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any, NamedTuple

from fastapi import FastAPI


class Reply(NamedTuple):
    """What the app answered.

    Args:
        reads: parts of the body that it took before.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    reads: int

    @property
    def error(self) -> str:
        said: str = json.loads(self.body)["error"]
        return said


async def put(
    app: FastAPI,
    body: bytes | AsyncIterator[bytes],
    headers: Mapping[str, str] | None = None,
    scope: Mapping[str, Any] | None = None,
) -> Reply:
    """`PUT /oea/config`, with a whole body, or one in parts: when these are at an end, the client
    is gone."""
    sent: list[Any] = []
    reads = 0

    async def receive() -> dict[str, Any]:
        nonlocal reads
        reads += 1
        if isinstance(body, bytes):
            return {"type": "http.request", "body": body, "more_body": False}
        try:
            return {"type": "http.request", "body": await anext(body), "more_body": True}
        except StopAsyncIteration:
            return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    given = [
        (name.lower().encode(), value.encode("latin-1")) for name, value in (headers or {}).items()
    ]
    path = {"path": "/oea/config", "raw_path": b"/oea/config", "root_path": "", "query_string": b""}
    about = {
        "type": "http",
        "http_version": "1.1",
        "method": "PUT",
        "scheme": "http",
        "server": ("test", 80),
    }
    await app(
        {**about, **path, "headers": given, "client": ("10.0.0.7", 1), **(scope or {})},
        receive,
        send,
    )
    answered = b"".join(message.get("body", b"") for message in sent[1:])
    return Reply(
        sent[0]["status"],
        {name.decode(): value.decode() for name, value in sent[0]["headers"]},
        answered,
        reads,
    )
