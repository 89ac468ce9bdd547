"""How a soak sorts what becomes of its requests, on the stub."""

from __future__ import annotations

import pytest

from loadtest.soak import Soak
from tests.loadtest.stub import Stub

COUNT = 150


@pytest.fixture
def fast(stub: Stub) -> Stub:
    stub.gap["oea"] = 0.0
    return stub


def test_every_request_ends_somehow(fast: Stub) -> None:
    soak = Soak(fast.url, 0)
    soak.play(COUNT)
    assert soak.done == sum(soak.seen.values()) == COUNT
    assert set(soak.seen) == {"answered", "refused", "cancelled"}, soak.broken


def test_a_second_play_asks_anew_and_a_second_soak_the_same(fast: Stub) -> None:
    first = Soak(fast.url, 0)
    first.play(30)
    first.play(30)
    assert len({str(body["messages"]) for body in fast.bodies}) == len(fast.bodies)
    before = len(fast.bodies)
    again = Soak(fast.url, 0)
    again.play(60)
    assert len(fast.bodies) == 2 * before
    assert again.seen.total() == first.seen.total()


def test_what_is_no_answer_is_broken(fast: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "loadtest.workload.Ask.body",
        lambda ask, _: {"model": "cut", "messages": [], "max_tokens": 2},
    )
    soak = Soak(fast.url, 0)
    soak.play(40)
    assert soak.seen["broken"] > 20
    assert any(
        "StreamError" in why or "ended without" in why or "KeyError" in why for why in soak.broken
    )
