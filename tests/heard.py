"""A server that writes down what it hears: what a proxy sees of a request, or a host that it is
sent on to."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple


class Request(NamedTuple):
    """A request as it came over the wire."""

    method: str
    target: str
    headers: Mapping[str, str]

    @property
    def key(self) -> str | None:
        return self.headers.get("authorization")


class Heard:
    """Answers every request alike; what it heard is in `requests`."""

    def __init__(
        self, status: int = 200, answer: Any = None, headers: Mapping[str, str] | None = None
    ) -> None:
        self.status, self.answer, self.headers = status, answer, dict(headers or {})
        self.requests: list[Request] = []
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def keys(self) -> set[str | None]:
        return {request.key for request in self.requests}


@contextmanager
def hearing(heard: Heard) -> Iterator[Heard]:
    """Let it listen."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            named = {name.lower(): value for name, value in self.headers.items()}
            heard.requests.append(Request(self.command, self.path, named))
            body = (
                heard.answer
                if isinstance(heard.answer, bytes)
                else json.dumps(heard.answer or {}).encode()
            )
            self.send_response(heard.status)
            for name, value in {**heard.headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_PUT = do_POST = do_CONNECT = answer  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    heard.port = server.server_address[1]
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield heard
    finally:
        server.shutdown()
        server.server_close()
