"""What is shown of a server whose scores are NaN has to stay JSON, and numbers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any, cast

import pytest

from loadtest.chaos import not_numbers
from loadtest.client import session

PAGES = {
    "/oea/stats": '{"total": 1.5}',
    "/oea/config": "{}",
    "/metrics": "oea_router_mass_kept 1.0\nsglang:x NaN\n",
}
BROKEN = {
    "/oea/stats": ('{"total": NaN}', "NaN is no JSON"),
    "/oea/config": ('{"p": -Infinity}', "-Infinity is no JSON"),
    "/metrics": ('oea_router_mass_kept{pid="7"} nan\n', 'oea_router_mass_kept{pid="7"} nan'),
}


@pytest.fixture
def serve() -> Iterator[Callable[[dict[str, str]], str]]:
    pages: dict[str, str] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(pages[self.path].encode())

        def log_message(self, *_: Any) -> None:
            pass

    def with_pages(given: dict[str, str]) -> str:
        pages.update(given)
        return f"http://127.0.0.1:{server.server_port}"

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield with_pages
        server.shutdown()


def shown(url: str) -> list[str]:
    async def ask() -> list[str]:
        async with session() as http:
            return await not_numbers.shown(http, cast(Any, SimpleNamespace(url=url)), "oea")

    return asyncio.run(ask())


def test_numbers_hold(serve: Callable[[dict[str, str]], str]) -> None:
    assert shown(serve(PAGES)) == []


@pytest.mark.parametrize("page", BROKEN)
def test_what_is_none_breaks(page: str, serve: Callable[[dict[str, str]], str]) -> None:
    text, why = BROKEN[page]
    assert shown(serve({**PAGES, page: text})) == [f"policy=oea: {page}: {why}"]
