"""How crowds, stalls, races and signals are judged, and what a server leaves behind: each wrong
thing is found."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
from collections import Counter
from typing import Any

import pytest

from loadtest.chaos import arena, crowds, operators, restarts, signals, stalls, traces
from loadtest.chaos.operators import Reply
from loadtest.client import session
from loadtest.stream import StreamError
from oea_server.client.server import Server
from tests.loadtest.stub import Stub

FIT = crowds.QUEUED
ALIVE = Counter({"/health ok": 3})
WHOLE = {"whole": FIT}


def test_a_crowd_of_which_what_fits_is_answered_and_the_rest_refused_is_right() -> None:
    seen = crowds.crowd_seen(Counter({**WHOLE, "503": 5, crowds.IN_STREAM: 1}), True, ALIVE)
    what = (
        f"{FIT + 6} requests: {FIT} x whole, 5 x 503, 1 x 200 with a 503 in it; 3 probes answered"
    )
    assert (seen.wrong, seen.what) == ((), what)
    assert seen.known == ("a stream that finds the queue full: 200 with a 503 in it",)


@pytest.mark.parametrize(
    ("heard", "again", "probes", "wrong"),
    [
        ({**WHOLE, "no [DONE]": 1}, True, ALIVE, "1 x no [DONE]"),
        ({**WHOLE, "TimeoutError: ": 2}, True, ALIVE, "2 x TimeoutError: "),
        ({**WHOLE, "500": 1}, True, ALIVE, "1 x 500"),
        ({**WHOLE, "503 without a word": 1}, True, ALIVE, "1 x 503 without a word"),
        ({"whole": FIT - 1, "503": 9}, True, ALIVE, f"{FIT - 1} answered, though {FIT} may wait"),
        (WHOLE, False, ALIVE, "no answer when the crowd had gone"),
        (WHOLE, True, ALIVE + Counter({"/metrics 500": 1}), "probe /metrics 500"),
    ],
)
def test_what_is_wrong_with_a_crowd(
    heard: dict[str, int], again: bool, probes: Counter[str], wrong: str
) -> None:
    assert crowds.crowd_seen(Counter(heard), again, probes).wrong == (wrong,)


def test_what_one_of_a_crowd_hears(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = arena.body

    async def hear(model: str, number: int) -> str:
        monkeypatch.setattr(crowds, "body", lambda *given: asked(*given) | {"model": model})
        async with session() as http:
            return await crowds._hear(http, stub.url, number)

    assert [asyncio.run(hear("demo", number)) for number in (0, 1)] == ["whole"] * 2
    assert [asyncio.run(hear("refuse", number)) for number in (0, 1)] == ["429"] * 2
    assert asyncio.run(hear("cut", 0)) == "the stream ended without [DONE]"
    assert "out of memory" in asyncio.run(hear("fail", 0))


def reply(version: int, min_batch: int, status: int = 200, **more: Any) -> Reply:
    return Reply(
        status, f'"{version}"', {"settings": {"min_batch": min_batch}, "version": version, **more}
    )


TOLD = Reply(412, "", {"error": "the version is 2 by now"})


def test_a_race_that_one_wins_is_right() -> None:
    assert operators.raced(reply(1, 2), [TOLD, reply(2, 4)], reply(2, 4)) == []


@pytest.mark.parametrize(
    ("replies", "after", "wrong"),
    [
        ([reply(2, 3), reply(3, 4)], reply(3, 4), "two changes of one version: 200 and 200"),
        ([TOLD, TOLD], reply(1, 2), "two changes of one version: 412 and 412"),
        ([TOLD, reply(2, 4)], reply(2, 3), "in force is not what was taken"),
        ([TOLD, reply(1, 4)], reply(1, 4), 'version "1", then "1" for the winner and "1" for all'),
    ],
)
def test_what_is_wrong_with_a_race(replies: list[Reply], after: Reply, wrong: str) -> None:
    assert operators.raced(reply(1, 2), replies, after) == [wrong]


def test_changes_without_a_version_are_both_taken_and_the_last_is_in_force() -> None:
    assert operators.both(reply(1, 2), [reply(3, 3), reply(2, 4)], reply(3, 3)) == []


@pytest.mark.parametrize(
    ("replies", "after", "wrong"),
    [
        ([reply(2, 3), TOLD], reply(2, 3), "two changes without If-Match: 200 and 412"),
        ([reply(2, 3), reply(3, 4)], reply(3, 3), "in force is not what was taken last"),
        ([reply(2, 3), reply(2, 3)], reply(2, 3), 'versions "1", "2", "2", then "2"'),
    ],
)
def test_what_is_wrong_without_a_version(replies: list[Reply], after: Reply, wrong: str) -> None:
    assert operators.both(reply(1, 2), replies, after) == [wrong]


LATE = Reply(504, "", {"error": "the schedulers did not answer in 30 s; nothing changed"})
TAKEN = reply(2, stalls.NEXT, changes={"min_batch": [2, stalls.NEXT]})


def test_a_stall_whose_changes_were_told_right_is_right() -> None:
    assert stalls.stall_wrong(reply(1, 2), [LATE, TAKEN, TOLD], reply(2, stalls.NEXT)) == []


@pytest.mark.parametrize(
    ("replies", "after", "wrong"),
    [
        ([reply(2, 3), TAKEN, TOLD], stalls.NEXT, "a change that waited 30 s: 200 "),
        ([LATE, LATE, TOLD], 2, f"a change that waited less: 504 {LATE.body['error']}"),
        ([LATE, TAKEN, reply(3, 6)], stalls.NEXT, "a change of the version before: 200"),
        ([LATE, TAKEN, TOLD], stalls.GONE, f"min_batch is {stalls.GONE}, which nobody was told"),
        (
            [LATE, reply(3, stalls.NEXT, changes={"min_batch": [stalls.GONE, stalls.NEXT]}), TOLD],
            stalls.NEXT,
            (
                f"an earlier change was applied, given up or not: {{'min_batch': [{stalls.GONE},"
                f" {stalls.NEXT}]}}"
            ),
        ),
    ],
)
def test_what_is_wrong_with_a_stall(replies: list[Reply], after: int, wrong: str) -> None:
    assert stalls.stall_wrong(reply(1, 2), replies, reply(3, after)) == [wrong]


TRACEBACK = """[2026-01-01 00:00:00] Uvicorn running
Traceback (most recent call last):
  File "/venv/bin/oea-server", line 8, in <module>
    main()
  File "/somewhere/{}", line 5, in go
    go()
    ^^^^
{}
[2026-01-01 00:00:00] after it
"""


def test_tracebacks_that_end_in_our_code_are_ours() -> None:
    mine = TRACEBACK.format("oea_server/engine/http.py", "KeyError: 'oea'")
    theirs = TRACEBACK.format("sglang/srt/server.py", "KeyError: 'sglang'")
    assert signals.ours(theirs + mine) == ["KeyError: 'oea'"]


@pytest.mark.parametrize(
    ("script", "said", "wrong"),
    [
        ("", "-15 after", []),
        ("trap 'exit 0' TERM", "0 after", []),
        ("trap 'echo ends >$TMPDIR/kept; exit 0' TERM", "0 after", ["left: ", "kept"]),
        ("trap 'echo still here' TERM", "None after", ["left: process sh -c", "runs after"]),
        ("(trap '' TERM; while :; do sleep 0.1; done) &", "-15 after", ["left: process sh -c"]),
        ("cat traceback; trap 'exit 0' TERM", "0 after", ["a traceback of ours: KeyError: 'oea'"]),
    ],
)
def test_what_is_wrong_with_an_end(
    script: str, said: str, wrong: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "traceback").write_text(
        TRACEBACK.format("oea_server/engine/http.py", "KeyError: 'oea'")
    )
    made = list[Server]()

    def server(environment: dict[str, str]) -> Server:
        loop = f"{script}\necho 'oea-server: policy'; while :; do sleep 0.1; done"
        made.append(Server(command=("sh", "-c", loop), environment=environment))
        return made[-1]

    monkeypatch.setattr(signals, "server", server)
    goes_on, remains = said.startswith("None"), any("process" in each for each in wrong)
    monkeypatch.setattr(signals, "DEADLINE", 0.5 if goes_on else 30.0)
    monkeypatch.setattr(traces, "DEADLINE", 0.5 if remains else 30.0)
    monkeypatch.setattr(Server, "stop", traces.clear)
    how, found = asyncio.run(
        signals._one(signals.Case("waiting", signal.SIGTERM, signals.IMPORTING, 0.1))
    )
    for each in made:
        assert each.process is not None
        each.process.wait(10)
        each.log.unlink(missing_ok=True)
    assert how.startswith(said)
    assert all(each in "; ".join(found) for each in wrong), found
    assert bool(found) == bool(wrong), found


def test_what_a_server_leaves_is_found(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traces, "DEADLINE", 0.3)
    running = Server(command=("sh", "-c", "sleep 60 & sleep 60"))
    running.spawn()
    try:
        (tmp_path / "in").mkdir()
        (tmp_path / "in/kept").touch()
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", running.port))
            taken.listen()
            found = traces.left(running, {str(tmp_path / "in"), "/dev/shm/nothing"}, tmp_path)
        assert [line.split()[0] for line in found[:-2]] == ["process"] * 3
        assert found[-2:] == [str(tmp_path / "in"), str(tmp_path / "in/kept")]
        traces.clear(running)
        assert running.process is not None
        running.process.wait(10)
        monkeypatch.setattr(traces, "DEADLINE", 30.0)
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", running.port))
            taken.listen()
            assert traces.left(running, set()) == [f"port {running.port} is taken"]
        assert traces.left(running, set()) == []
    finally:
        traces.clear(running)
        running.stop()
        running.log.unlink(missing_ok=True)


def test_a_client_tries_again_where_nothing_was_begun(stub: Stub) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{probe.getsockname()[1]}"
    body = {
        "model": "demo",
        "max_tokens": 2,
        "stream": True,
        "messages": [{"role": "user", "content": "hello"}],
    }

    async def ask(urls: list[str], model: str) -> tuple[str, Counter[str]]:
        retries = Counter[str]()
        async with session() as http:
            _, text = await restarts._insist(
                http, restarts.Balancer(urls), 0, {**body, "model": model}, retries
            )
        return text, retries

    text, retries = asyncio.run(ask([stub.url, nobody], "demo"))
    assert (text, retries.total()) == ("t0 t1 ", 1)
    for model in ("cut", "refuse"):
        with pytest.raises(StreamError):
            asyncio.run(ask([stub.url], model))


def test_a_server_heeds_what_a_background_shell_ignores() -> None:
    script = (
        "import signal; from loadtest.chaos import signals; signals.heed(); "
        "print(*[signal.getsignal(each).name for each in signals.FROM_A_TERMINAL])"
    )
    command = ["bash", "-c", 'trap "" INT QUIT HUP; exec "$0" -c "$1"', sys.executable, script]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["SIG_DFL"] * 3
