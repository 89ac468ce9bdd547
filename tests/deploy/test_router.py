"""SGLang's router before a server with an admin key: what it asks of one without a key, and that it
passes chats on."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests

from oea_server.client import ports

READY_WITHIN = 120.0
"""Seconds; tried: 13, of imports."""
CONTROL = ("/server_info", "/get_server_info", "/flush_cache", "/oea")


class Locked(BaseHTTPRequestHandler):
    """A server that shows nothing of CONTROL to one without a key."""

    asked: list[tuple[str, int]]

    def do_GET(self) -> None:
        locked = self.path.startswith(CONTROL)
        self.answer(401 if locked else 200, {"model_path": "demo", "is_generation": True})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.answer(200, {"object": "chat.completion", "choices": []})

    def answer(self, status: int, body: object) -> None:
        self.asked.append((self.path, status))
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def asked(tmp_path: Path) -> Iterator[tuple[str, list[tuple[str, int]]]]:
    """The router's URL, and what it asked of the server behind it."""
    seen: list[tuple[str, int]] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Seen", (Locked,), {"asked": seen}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    port = ports.free()
    words = [
        "--host=127.0.0.1",
        f"--port={port}",
        f"--prometheus-port={ports.free()}",
        "--policy=cache_aware",
    ]
    words += ["--worker-urls", f"http://127.0.0.1:{server.server_port}"]
    log = tmp_path / "log"
    with log.open("wb") as out:
        router = subprocess.Popen(
            [sys.executable, "-m", "sglang_router.launch_router", *words],
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + READY_WITHIN
        while not ready(url):
            assert router.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.5)
        yield url, seen
    finally:
        router.kill()
        router.wait()
        server.shutdown()
        server.server_close()


def ready(url: str) -> bool:
    try:
        return requests.get(f"{url}/readiness", timeout=5).ok
    except requests.ConnectionError:
        return False


def test_it_serves_though_the_server_tells_it_nothing(
    asked: tuple[str, list[tuple[str, int]]],
) -> None:
    url, seen = asked
    body = {"model": "demo", "messages": [{"role": "user", "content": "hello"}]}
    assert requests.post(f"{url}/v1/chat/completions", json=body, timeout=30).status_code == 200
    assert ("/v1/chat/completions", 200) in seen
    assert [path for path, status in seen if status == 401], (
        "it asks for none of these: this test is not needed"
    )
