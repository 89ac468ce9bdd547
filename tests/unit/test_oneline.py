"""What of a client's text goes into the log: one line of it, with nothing that a terminal obeys."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oea_server.access.origin import PEER
from oea_server.observe import peer
from oea_server.oneline import oneline
from tests.unit.asgi import put
from tests.unit.hidden import hidden
from tests.unit.replicas import Replicas, app_of

CONTROLS = {
    "newline": ("\n", r"\n"),
    "return": ("\r", r"\r"),
    "escape": ("\x1b", r"\x1b"),
    "NUL": ("\0", r"\x00"),
    "delete": ("\x7f", r"\x7f"),
    "next line": ("\x85", r"\x85"),
    "CSI": ("\x9b", r"\x9b"),
    "line separator": ("\u2028", r"\u2028"),
    "paragraph separator": ("\u2029", r"\u2029"),
    "right to left": ("\u202e", r"\u202e"),
    "isolate": ("\u2066", r"\u2066"),
    "no width": ("\u200b", r"\u200b"),
    "tag": ("\U000e0001", r"\U000e0001"),
    "half a surrogate pair": ("\ud800", r"\ud800"),
}
FORGED = "[2026-11-27 10:00:00] OEA: 10.9.9.9 changed policy oea -> vanilla"


@pytest.mark.parametrize(("raw", "escaped"), CONTROLS.values(), ids=CONTROLS)
def test_controls_are_escaped(raw: str, escaped: str) -> None:
    assert oneline(f"a{raw}b é 漢 😀 \\n") == f"a{escaped}b é 漢 😀 \\n"


@given(st.text(st.characters() | st.sampled_from("\ud800\n\u2028")), st.integers(1, 50))
def test_any_text_is_one_line_and_no_longer_than_asked(text: str, longest: int) -> None:
    line = oneline(text, longest)
    assert len(line) <= longest
    assert not hidden(line)
    line.encode()
    assert oneline(line, longest) == line


def test_what_is_cut_says_so() -> None:
    assert oneline("x" * 11, 10) == "x" * 9 + "…"
    assert oneline("x" * 10, 10) == "x" * 10
    assert oneline("\n" * 10, 10) == r"\n\n\n\n\…"


@pytest.mark.parametrize("raw", [raw for raw, _ in CONTROLS.values()], ids=CONTROLS)
@pytest.mark.parametrize("where", ["name", "value", "schedule", "duplicate", "claim"])
def test_no_client_writes_a_line_of_the_log(
    raw: str, where: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    text = json.dumps(f"x{raw}{FORGED}", ensure_ascii=raw == "\ud800")
    body = {
        "name": f"{{{text}: 1}}",
        "value": f'{{"policy": {text}}}',
        "schedule": f'{{"k0": {text}}}',
        "duplicate": f"{{{text}: 1, {text}: 1}}",
        "claim": '{"k0": 4}',
    }[where].encode()
    client = (f"x{raw}{FORGED}" if where == "claim" else "10.0.0.7", 1)
    reply = asyncio.run(
        put(app_of(Replicas()), body, scope={"client": client, PEER: ("127.0.0.1", 9)})
    )
    lines = [
        record.getMessage() for record in caplog.records if record.name.startswith("oea_server")
    ]
    assert len(lines) == 1
    assert lines[0].startswith(("OEA: refused 127.0.0.1 (claims ", "OEA: 127.0.0.1 (claims "))
    assert not hidden(lines[0])
    assert not hidden(reply.body.decode())


def test_what_a_scheduler_refuses_is_one_line_too() -> None:
    class Refusing(Replicas):
        async def change(self, knobs: Any) -> list[bool]:
            self.now[0]["refused"] = "no:\n\x1b[31m" + "x" * 9000
            return [False]

    reply = asyncio.run(put(app_of(Refusing()), b'{"k0": 4}'))
    assert reply.status == 409
    assert reply.error.startswith(r"no:\n\x1b[31mxxx")
    assert len(reply.error) == 600


@pytest.mark.parametrize(
    ("scope", "name"),
    [
        ({"client": ("10.0.0.7", 1)}, "10.0.0.7"),
        ({"client": ("10.0.0.7", 1), PEER: ("10.0.0.7", 1)}, "10.0.0.7"),
        ({"client": ("203.0.113.99", 0), PEER: ("10.0.0.7", 1)}, "10.0.0.7 (claims 203.0.113.99)"),
        ({"client": ("2001:db8::1", 0), PEER: ("::1", 1)}, "::1 (claims 2001:db8::1)"),
        ({"client": ("fe80::1%eth0", 0)}, "fe80::1%eth0"),
        ({"client": None}, "somebody"),
        ({}, "somebody"),
        ({"client": ("10.0.0.9", 0), PEER: None}, "somebody (claims 10.0.0.9)"),
        (
            {"client": ("x) changed p 1 -> 2", 0), PEER: ("::1", 1)},
            "::1 (claims 'x) changed p 1 -> 2')",
        ),
        ({"client": ("\u2028'", 0)}, '"\\u2028\'"'),
    ],
)
def test_the_socket_is_named_before_what_a_header_claims(scope: dict[str, Any], name: str) -> None:
    assert peer.name(scope) == name


def test_a_claim_may_be_long() -> None:
    assert len(peer.name({"client": ("x" * 60_000, 0), PEER: ("10.0.0.7", 1)})) < 90
