"""Chats in the background: as many as asked for, until the block ends, and none that fails
unseen."""

from __future__ import annotations

import time

import pytest

from loadtest import background
from loadtest.background import chatting
from tests.loadtest.stub import Stub


def test_chats_go_on_until_the_block_ends(stub: Stub) -> None:
    wish = {"custom_params": {"oea": {"tier": "gold"}}}
    with chatting(stub.url, 3, "first", wish):
        while len(stub.bodies) < 9:
            time.sleep(0.01)
    asked = len(stub.bodies)
    time.sleep(0.3)
    assert len(stub.bodies) == asked
    assert {str(body["custom_params"]) for body in stub.bodies} == {str(wish["custom_params"])}
    assert len({str(body["messages"]) for body in stub.bodies}) == asked


def test_a_chat_that_fails_is_said_when_the_block_ends(
    stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "MODEL", "refuse")
    with pytest.raises(ExceptionGroup) as raised, chatting(stub.url, 2):
        time.sleep(0.5)
    assert "429" in str(raised.value.exceptions[0])
