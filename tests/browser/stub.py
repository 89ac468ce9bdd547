"""An HTTP server that answers as the contract says, out of a World."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from oea_server.observe import page
from tests.browser.world import World


class Stub:
    """Serves the page and a world's statistics.

    Args:
        key: what reading needs, if anything.
        admin_key: what a change needs, if anything.
    """

    def __init__(self, world: World, key: str = "", admin_key: str = "") -> None:
        self.world = world
        self.key = key
        self.admin_key = admin_key
        self.refuse: tuple[int, str] | None = None
        self.broken: tuple[int, str] | None = None
        self.headers = page.headers()
        self.requests: list[tuple[str, str, str]] = []  # method, path with query, Authorization
        self.changes: list[Any] = []
        self.port = 0
        self._server: ThreadingHTTPServer | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/oea"

    def start(self) -> None:
        """On the same port as before, if there was one."""
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                stub.answer(self, "GET")

            def do_PUT(self) -> None:
                stub.answer(self, "PUT")

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
        self._server = None

    def answer(self, request: BaseHTTPRequestHandler, method: str) -> None:
        url = urlsplit(request.path)
        authorization = request.headers.get("Authorization", "")
        self.requests.append((method, request.path, authorization))
        if url.path == "/oea":
            return send(
                request,
                200,
                page.html_of(self.world.schema),
                "text/html; charset=utf-8",
                self.headers,
            )
        status, content = self._answer(method, url.path, url.query, authorization, request)
        return send(request, status, json.dumps(content))

    def _answer(
        self,
        method: str,
        path: str,
        query: str,
        authorization: str,
        request: BaseHTTPRequestHandler,
    ) -> tuple[int, Any]:
        key = self.admin_key or self.key if method == "PUT" else self.key
        if key and authorization != f"Bearer {key}":
            return 401, {"error": "Unauthorized"}
        if (method, path) == ("GET", "/oea/stats"):
            if self.broken:
                return self.broken[0], {"error": self.broken[1]}
            return 200, self.world.stats(float(parse_qs(query).get("since", ["0"])[0]))
        if method == "PUT":
            asked = json.loads(request.rfile.read(int(request.headers["Content-Length"])))
            self.changes.append(asked)
            return self._put(path, asked)
        return 404, {"error": "Not Found"}

    def _put(self, path: str, asked: dict[str, Any]) -> tuple[int, Any]:
        if self.refuse:
            return self.refuse[0], {"error": self.refuse[1]}
        if path == "/oea/config":
            self.world.change(asked)
            return 200, self.world.config
        assert self.world.controller is not None
        self.world.controller |= (
            {"mode": "on", "rung": "vanilla"} if asked["on"] else {"mode": "off", "rung": None}
        )
        return 200, self.world.controller


def send(
    request: BaseHTTPRequestHandler,
    status: int,
    text: str,
    kind: str = "application/json",
    headers: Mapping[str, str] | None = None,
) -> None:
    body = text.encode()
    request.send_response(status)
    for name, value in (headers or {}).items():
        request.send_header(name, value)
    request.send_header("Content-Type", kind)
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    request.wfile.write(body)
