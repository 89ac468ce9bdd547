"""How a start is judged that has to be refused, or may be."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from loadtest.chaos import networks, starting
from loadtest.chaos.outcome import BROKE, HELD
from loadtest.chaos.starting import Ended
from oea_server.client.server import Server
from oea_server.engine.refuse import PREFIX

LINE = f"{PREFIX}/models/x.safetensors: cut"
CLEAR = Ended(2, [LINE], 0, [], 20.0)
TROUBLES = {
    "went on": (CLEAR._replace(code=None), "neither refused nor served after 20 s"),
    "no line": (
        CLEAR._replace(refusals=[]),
        "0 lines of refusal, and none that says x.safetensors",
    ),
    "two lines": (CLEAR._replace(refusals=[LINE, LINE]), "2 lines of refusal"),
    "another line": (
        CLEAR._replace(refusals=[f"{PREFIX}no"]),
        "1 lines of refusal, and none that says x.safetensors",
    ),
    "traceback": (CLEAR._replace(tracebacks=3), "3 tracebacks"),
    "left": (CLEAR._replace(left=["python 17"]), "left behind: python 17"),
}


def test_a_clear_refusal_holds() -> None:
    found = starting.refused("cut", CLEAR, "x.safetensors")
    assert (found.verdict, found.why, found.leaked) == (HELD, (), "nothing")
    assert "said: /models/x.safetensors: cut; ended with 2" in found.server_did
    assert starting.not_started("few", CLEAR).verdict == HELD


def test_a_start_that_had_to_be_refused_breaks() -> None:
    assert starting.refused("cut", None, "x.safetensors").verdict == BROKE


@pytest.mark.parametrize("name", TROUBLES)
def test_any_other_end_breaks(name: str) -> None:
    ended, why = TROUBLES[name]
    found = starting.refused("cut", ended, "x.safetensors")
    assert found.verdict == BROKE
    assert len(found.why) == 1
    assert found.why[0].startswith(why)


@pytest.mark.parametrize("name", [name for name in TROUBLES if name != "another line"])
def test_one_that_may_be_refused_has_to_be_in_one_line(name: str) -> None:
    found = starting.not_started("few", TROUBLES[name][0])
    assert (found.verdict, len(found.why)) == (BROKE, 1)


@pytest.fixture
def sleeper() -> Iterator[int]:
    """A process of a group of its own."""
    with subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True
    ) as process:
        yield process.pid
        process.kill()


def test_what_is_left_of_a_group_is_named(sleeper: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starting, "LINGER", 0.0)
    (named,) = starting.left(sleeper)
    assert named.endswith(f" {sleeper}")
    os.kill(sleeper, 9)
    monkeypatch.setattr(starting, "LINGER", 10.0)
    assert starting.left(sleeper) == []


def test_a_start_that_ends_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    said = f"print({LINE!r}); print('Traceback (most recent call last)'); raise SystemExit(2)"
    found = starting.begin(Server(command=(sys.executable, "-c", said)))
    assert found is not None
    assert (found.code, found.refusals, found.tracebacks, found.left) == (2, [LINE], 1, [])


@pytest.mark.parametrize(
    ("line", "host"),
    [
        ("GET http://127.0.0.1:30000/health HTTP/1.1", "127.0.0.1"),
        ("GET http://[::1]:30000/health HTTP/1.1", "::1"),
        ("CONNECT localhost:443 HTTP/1.1", "localhost"),
        ("CONNECT [::1]:443 HTTP/1.1", "::1"),
        ("", ""),
        ("\x16\x03", ""),
    ],
)
def test_what_a_proxy_is_asked_for(line: str, host: str) -> None:
    assert networks.asked_for(line) == host
