"""What a PUT may cost: bytes read, bytes answered, bytes logged; and whom it may keep waiting."""

from __future__ import annotations

import asyncio
import json
import signal
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from oea_server.observe import change
from oea_server.observe.body import LARGEST
from oea_server.oneline import oneline
from oea_server.settings import LIVE
from tests.unit.asgi import Reply, put
from tests.unit.hidden import hidden
from tests.unit.replicas import Replicas, app_of

ANSWER = 2048
"""Bytes of a refusal: 600 characters, of three bytes at most where they are not escaped, and what
is around them."""
MEMORY = 4 << 20
"""Bytes at the peak: a body of 16 KiB, read, copied and taken apart."""
HANG = 120
"""Seconds after which something hangs; what is here takes milliseconds."""


async def parts(*each: bytes) -> AsyncIterator[bytes]:
    for part in each:
        yield part


async def endless(part: bytes) -> AsyncIterator[bytes]:
    while True:
        yield part


def send(body: bytes, headers: dict[str, str] | None = None) -> Reply:
    return asyncio.run(put(app_of(Replicas()), body, headers))


@pytest.mark.parametrize("length", [str(LARGEST + 1), "4200000", "9" * 5000])
def test_a_body_that_says_it_is_large_is_refused_unread(length: str) -> None:
    reply = asyncio.run(put(app_of(Replicas()), endless(b" "), {"content-length": length}))
    assert (reply.status, reply.reads) == (413, 0)
    assert reply.error == f"a body of {length[:10]} bytes is above 16384"


@pytest.mark.parametrize("headers", [{"transfer-encoding": "chunked"}, {"content-length": "2"}, {}])
@pytest.mark.parametrize("size", [1000, 1 << 20])
def test_a_body_that_does_not_say_so_is_read_up_to_the_bound(
    headers: dict[str, str], size: int
) -> None:
    reply = asyncio.run(put(app_of(Replicas()), endless(b" " * size), headers))
    assert (reply.status, reply.reads) == (413, LARGEST // size + 1)
    assert reply.error == "the body is above 16384 bytes"


def test_the_bound_itself_is_not_above_it() -> None:
    body = b'{"k0": 4}'
    reply = send(body + b" " * (LARGEST - len(body)), {"content-length": str(LARGEST)})
    assert reply.status == 200


def test_a_body_that_never_ends_keeps_nobody_waiting() -> None:
    async def slow() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    async def both() -> int:
        app = app_of(Replicas())
        waiting = asyncio.create_task(put(app, slow()))
        for _ in range(100):
            await asyncio.sleep(0)
        assert not waiting.done()
        async with asyncio.timeout(HANG):
            reply = await put(app, b'{"k0": 4}')
        waiting.cancel()
        return reply.status

    assert asyncio.run(both()) == 200


def test_a_client_that_leaves_half_way_is_a_line_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    replicas = Replicas()
    asyncio.run(put(app_of(replicas), parts(b'{"k0": 4}')))
    assert [
        record.getMessage() for record in caplog.records if record.name.startswith("oea_server")
    ] == ["OEA: refused 10.0.0.7's change: the client left before the end of the body"]
    assert replicas.now[0]["version"] == 0


def test_many_problems_are_counted_and_few_are_said() -> None:
    unknown = {f"key {i}": i for i in range(1000)}
    reply = send(json.dumps(unknown).encode())
    assert (reply.status, len(reply.error) < 400) == (422, True)
    assert reply.error.startswith("key 0: no such knob; there are policy, k0")
    assert reply.error.endswith("key 3: no such knob; key 4: no such knob; and 995 more")


def test_problems_of_knobs_and_unknown_ones_share_the_place() -> None:
    wrong = {name: ["long " * 100] for name in LIVE}
    reply = send(json.dumps({**wrong, **dict.fromkeys("abc", 0)}).encode())
    said, left = reply.error.rsplit("; and ", 1)
    assert len(said) <= 500
    shown = sum(f"{name}=" in said for name in LIVE)
    assert 2 <= shown <= change.MOST
    assert left == f"{len(LIVE) + 3 - shown} more"


def test_a_long_schedule_is_taken_whole_and_logged_in_part(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    schedule = ",".join(f"{batch}:3" for batch in range(1, 600))
    reply = send(json.dumps({"k0": schedule}).encode())
    assert json.loads(reply.body)["changes"] == {"k0": ["auto", schedule]}
    line = next(
        record.getMessage() for record in caplog.records if record.name.startswith("oea_server")
    )
    assert line.startswith("OEA: 10.0.0.7 changed k0 auto -> 1:3,2:3,")
    assert len(line) < 700


def test_lines_are_made_for_what_is_said_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def counted(text: str, longest: int) -> str:
        made.append(text)
        return oneline(text, longest)

    monkeypatch.setattr(change, "oneline", counted)
    with pytest.raises(ValueError, match="and 1995 more"):
        change.parse(json.dumps(dict.fromkeys(map(str, range(2000)))).encode())
    assert len(made) == change.MOST


REPLICAS = Replicas()
APP = app_of(REPLICAS)
LONG = "x" * (LARGEST - 20)
TEXT = st.text(
    st.characters() | st.sampled_from("\n\r\x1b\x85\u2028\u2029\u202e\u2066\ud800\x00\U000e0001"),
    max_size=40,
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
    max_leaves=20,
)
OBJECTS = st.dictionaries(st.sampled_from(LIVE) | TEXT, VALUES, max_size=60).map(
    lambda each: json.dumps(each).encode()
)
RAW = st.dictionaries(st.sampled_from(LIVE) | TEXT, VALUES).map(
    lambda each: json.dumps(each, ensure_ascii=False).encode(errors="surrogatepass")
)


@contextmanager
def hang_guard() -> Iterator[None]:
    def end(*_: object) -> None:
        raise TimeoutError(f"not over after {HANG} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(HANG)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(OBJECTS | RAW | st.binary(max_size=200))
@example(json.dumps({LONG: 0}).encode())
@example(json.dumps({"k0": LONG}).encode())
@example(json.dumps({"policy": LONG}).encode())
@example(json.dumps({"k0": "1:8," * 1000 + "2:6"}).encode())
@example(json.dumps({"k0": "1; " + ";".join(["0-1023=2"] * 400) + "; 9999=2"}).encode())
@example(json.dumps({"\u2028" * 2000: "\x1b" * 500}).encode())
@example(json.dumps({f"{i}": 0 for i in range(1500)}).encode())
@example(json.dumps({"k_max": 10**4000}).encode())
@example(b'{"k0": ' + b"[" * 150 + b"]" * 150 + b"}")
@example(b"[" * LARGEST)
@example(b'{"a":' * (LARGEST // 5))
@example(b"9" * LARGEST)
@example(b'{"x' + b"\\u2028" * 2700 + b'": 1}')
def test_fuzzed_bodies_stay_within_bounds(caplog_of: pytest.LogCaptureFixture, body: bytes) -> None:
    caplog_of.clear()
    REPLICAS.now = Replicas().now
    with hang_guard():
        tracemalloc.start()
        try:
            reply = asyncio.run(put(APP, body))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert reply.status in (200, 409, 413, 422)
    assert peak < MEMORY
    if reply.status != 200:
        assert len(reply.body) < ANSWER
        assert not hidden(reply.error)
    lines = [
        record.getMessage() for record in caplog_of.records if record.name.startswith("oea_server")
    ]
    assert len(lines) == 1
    assert len(lines[0].encode()) < ANSWER
    assert not hidden(lines[0])


@pytest.fixture(name="caplog_of")
def _caplog(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level("INFO")
    return caplog
