"""Load goes straight to a server on this machine, with the key that was given, whatever the
environment says."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtest import watch
from loadtest.client import RefusedError, chat, session
from tests.heard import Heard, hearing
from tests.loadtest.conftest import Locust
from tests.loadtest.stub import Stub

KEY = "the-key"
ASKED = {
    "model": "demo",
    "messages": [{"role": "user", "content": "hello"}],
    "max_tokens": 4,
    "stream": True,
}


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Heard]:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / ".netrc").write_text("default login somebody password else\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    with hearing(Heard(502)) as heard:
        for name in ("http_proxy", "all_proxy", "HTTP_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, heard.url)
        yield heard


async def one(url: str) -> None:
    async with session(KEY) as http:
        await chat(http, url, ASKED)


def test_chats_of_ab_soak_and_chaos(stub: Stub, proxy: Heard) -> None:
    asyncio.run(one(stub.url))
    assert stub.keys == [KEY]
    assert proxy.requests == []


def test_chats_of_locust(stub: Stub, proxy: Heard, locust: Locust) -> None:
    done = locust(
        stub.url, "-u", "1", "--requests", "1", "--tenants", f"t output=fixed:4 key={KEY}"
    )
    assert done.code == 0, done.output
    assert stub.keys == [KEY]
    assert proxy.requests == []


def test_what_is_watched(proxy: Heard) -> None:
    with hearing(Heard(answer={"loads": []})) as server:
        watch.load(server.url, KEY)
        assert server.keys == {f"Bearer {KEY}"}
    assert proxy.requests == []


def test_no_chat_follows_a_redirect() -> None:
    with (
        hearing(Heard()) as other,
        hearing(Heard(307, headers={"Location": f"{other.url}/"})) as server,
    ):
        with pytest.raises(RefusedError, match="307"):
            asyncio.run(one(server.url))
        assert other.requests == []
