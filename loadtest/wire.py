"""A streamed chat over gevent's sockets. As the official client, it sends the key as a bearer,
takes any status but 200 for an error with the server's words, and a stream for whole only after
[DONE]; it retries nothing."""

from __future__ import annotations

import json
from time import perf_counter
from typing import Any
from urllib.parse import urlsplit

from geventhttpclient import HTTPClient

from loadtest.stream import Stream, StreamError

PATH = "/v1/chat/completions"
TIMEOUT = 300.0
"""Seconds without a byte."""
LINE = b"\n"


def connect(host: str) -> HTTPClient:
    """A connection for one user: kept between its requests."""
    return HTTPClient.from_url(
        host, concurrency=1, connection_timeout=30.0, network_timeout=TIMEOUT
    )


def chat(
    client: HTTPClient,
    host: str,
    body: dict[str, Any],
    key: str | None,
    sent: float,
    cancel_after: int | None,
) -> tuple[Stream, bool]:
    """Ask and read. Whether it was read to its end; else it was given up after so many chunks of
    text.

    Raises:
        StreamError: the server refused, or the answer is not whole.
        OSError: the connection broke.
    """
    headers = {"Content-Type": "application/json", "Accept": "text/event-stream"}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    stream = Stream(sent, body["max_tokens"])
    response = client.post(urlsplit(host).path.rstrip("/") + PATH, json.dumps(body), headers)
    try:
        if response.status_code != 200:
            raise StreamError(f"{response.status_code}: {message_of(response.read())}")
        texts = 0
        while line := response.readline(LINE):
            if cancel_after is not None and texts >= cancel_after:
                return stream, False
            texts += stream.line(line, perf_counter())
        stream.check()
        return stream, True
    finally:
        response.release()  # closes the connection of an answer that was not read to its end


def message_of(body: bytes) -> str:
    """The server's words in the body of an error."""
    try:
        answer = json.loads(body)
        error = answer.get("error", answer)
        return str(error.get("message", error) if isinstance(error, dict) else error)[:200]
    except (ValueError, AttributeError):
        return body[:200].decode(errors="replace")
