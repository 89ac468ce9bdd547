"""What the page's headers forbid: frames of others, and scripts that are not its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from tests.browser.page import Page
from tests.browser.stub import Stub, send
from tests.browser.world import World

Serve = Callable[..., Stub]


@contextmanager
def framing(address: str) -> Iterator[str]:
    """A page of another origin with this one in a frame; its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            send(
                self,
                200,
                f'<!doctype html><iframe src="{address}" width=900 height=700></iframe>',
                "text/html",
            )

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    "left",
    [None, "Content-Security-Policy", "X-Frame-Options"],
    ids=["none", "policy", "frame-options"],
)
def test_another_origin_cannot_frame_it(page: Page, serve: Serve, left: str | None) -> None:
    """Either header does it, for browsers that know one of them; without any the frame would
    show."""
    stub = serve(World())
    stub.headers = {name: value for name, value in stub.headers.items() if name == left}
    with framing(stub.url) as other:
        page.driver.get(other)
        page.driver.switch_to.frame(page.driver.find_element("tag name", "iframe"))
        if left is None:
            page.until(lambda: page.driver.find_elements("id", "switch"), "the page in a frame")
        else:
            page.until(lambda: page.script("return document.readyState") == "complete", "the frame")
            assert not page.driver.find_elements("id", "switch")
        page.driver.switch_to.default_content()


def test_only_its_own_scripts_run(page: Page, serve: Serve) -> None:
    serve(World())
    assert page.errors() == []
    page.script("""const planted = document.createElement("script");
        planted.textContent = "window.planted = true";
        document.head.append(planted);""")
    assert page.script("return window.planted") is None
    assert "Content Security Policy" in "".join(page.errors())
