"""A server for whose processes there is no room is refused before it starts any."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from oea_server.engine import threads


def arguments(
    tp: int = 1, pp: int = 1, dp: int = 1, nnodes: int = 1, attention: bool = False
) -> SimpleNamespace:
    return SimpleNamespace(
        tp_size=tp, pp_size=pp, dp_size=dp, nnodes=nnodes, enable_dp_attention=attention
    )


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """As many threads at once as it says: the user's own limit does not hold for root."""
    room = {"left": 10**6}
    start, join = threading.Thread.start, threading.Thread.join

    def limited(thread: threading.Thread) -> None:
        if room["left"] == 0:
            raise RuntimeError("can't start new thread")
        room["left"] -= 1
        start(thread)

    def joined(thread: threading.Thread, timeout: float | None = None) -> None:
        join(thread, timeout)
        room["left"] += 1

    monkeypatch.setattr(threading.Thread, "start", limited)
    monkeypatch.setattr(threading.Thread, "join", joined)
    return room


def test_too_little_room_is_told_in_one_line(limit: dict[str, int]) -> None:
    limit["left"] = 30
    (line,) = threads.problems(arguments())
    assert line.startswith(
        "only 30 more threads and processes can be started here, and a server of 1 ranks has more"
    )
    assert limit["left"] == 30


def test_enough_room_is_given_back(limit: dict[str, int]) -> None:
    before = threading.active_count()
    limit["left"] = 48
    assert threads.problems(arguments()) == []
    assert limit["left"] == 48
    assert threading.active_count() == before


@pytest.mark.parametrize(
    ("given", "enough"),
    [
        (arguments(tp=4), 120),
        (arguments(tp=2, pp=2), 120),
        (arguments(dp=4), 120),
        (arguments(tp=4, dp=4, attention=True), 120),
        (arguments(tp=8, nnodes=2), 120),
        (arguments(tp=1, nnodes=2), 48),
    ],
)
def test_it_is_the_ranks_of_this_machine_that_count(
    given: SimpleNamespace, enough: int, limit: dict[str, int]
) -> None:
    limit["left"] = enough
    assert threads.problems(given) == []
    limit["left"] -= 1
    assert len(threads.problems(given)) == 1
