"""A rolling restart of stubs: what their clients lose, and what they leave, is found."""

from __future__ import annotations

import asyncio
import sys

import pytest

from loadtest.chaos import restarts, traces
from loadtest.chaos.outcome import BROKE, HELD
from oea_server.client.server import Server


@pytest.mark.parametrize(
    ("ends", "wrong"),
    [
        ("well", ()),
        ("cuts", ("lost: ClientPayloadError",)),
    ],
)
def test_a_rolling_restart(
    ends: str, wrong: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = list[Server]()

    def server() -> Server:
        made.append(Server(command=(sys.executable, "-m", "tests.loadtest.stub_process", ends)))
        return made[-1]

    monkeypatch.setattr(restarts, "server", server)
    monkeypatch.setattr(restarts, "QUIET", 0.3)
    monkeypatch.setattr(traces, "DEADLINE", 1.0)
    try:
        found = asyncio.run(restarts.rolling())
    finally:
        for each in made:
            traces.clear(each)
            each.log.unlink(missing_ok=True)
    assert found.verdict == (BROKE if wrong else HELD)
    assert len(found.why) >= len(wrong)
    assert all(why.startswith(each) for why, each in zip(found.why, wrong, strict=False)), found.why
    if ends == "well":
        whole, _, requests = found.client_saw.split()[:3]
        assert int(whole) == int(requests) > 10
        assert not found.client_saw.endswith("none")  # somebody met a server that was down
