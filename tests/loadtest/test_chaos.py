"""How a fault is judged, on the stub: the faults themselves run against real servers, by `python -m
loadtest chaos`."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import pytest

from loadtest import watch
from loadtest.chaos import all as every
from loadtest.chaos import arena as arena_
from loadtest.chaos import outcome
from loadtest.chaos.arena import Arena
from loadtest.chaos.outcome import BROKE, HELD, Outcome, Seen
from tests.loadtest.stub import Stub

IDLE = watch.Held({"http": 20}, {"http": 5}, {"num_running_reqs": 0}, {"http": 100.0})


class Judged:
    """An arena on the stub, and what its server holds before and after."""

    def __init__(self, stub: Stub, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        process = SimpleNamespace(pid=os.getpid(), poll=lambda: None)
        log.write_text("started\n")
        running = SimpleNamespace(url=stub.url, port=0, process=process, log=log)
        self.arena = Arena(cast(Any, running), None, None)
        self.stub, self.log, self.holds = stub, log, [IDLE, IDLE]
        monkeypatch.setattr(watch, "held", lambda *_: self.holds.pop(0))

    def bear(self, fault: Any, alone: bool = False) -> Outcome:
        async def both() -> Outcome:
            await self.arena.learn()
            return await self.arena.bear("a fault", fault, alone)

        return asyncio.run(both())


@pytest.fixture
def judged(stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Judged:
    return Judged(stub, tmp_path / "log", monkeypatch)


async def harmless(arena: Arena) -> Seen:
    return Seen("nothing of note")


def test_a_harmless_fault_is_held_and_bystanders_were_there(judged: Judged) -> None:
    found = judged.bear(harmless)
    assert (found.verdict, found.why, found.leaked) == (HELD, (), "nothing")
    answers = int(found.others_saw.split()[0])
    assert answers >= arena_.BYSTANDERS
    assert len(judged.stub.bodies) == arena_.BYSTANDERS + answers


def test_what_its_own_client_saw_wrong_breaks_it(judged: Judged) -> None:
    async def fault(arena: Arena) -> Seen:
        return Seen("a 500", ("cut: 500",))

    found = judged.bear(fault)
    assert (found.verdict, found.why) == (BROKE, ("cut: 500",))


def test_a_bystander_that_hears_something_else_breaks_it(judged: Judged) -> None:
    judged.stub.texts = ["other "]
    found = judged.bear(harmless)
    judged.stub.texts = []
    assert found.verdict == HELD  # the same before as meanwhile

    async def fault(arena: Arena) -> Seen:
        judged.stub.texts = ["changed "]
        await asyncio.sleep(0.3)
        return Seen("nothing")

    judged.holds = [IDLE, IDLE]
    judged.stub.texts = []
    found = judged.bear(fault)
    assert (found.verdict, found.why) == (BROKE, ("a bystander's answer changed",))


def test_a_leak_breaks_it(judged: Judged) -> None:
    judged.holds[1] = IDLE._replace(load={"num_running_reqs": 2})
    found = judged.bear(harmless)
    assert (found.verdict, found.leaked) == (BROKE, "num_running_reqs 2")


def test_a_hang_breaks_it(judged: Judged, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arena_, "DEADLINE", 0.5)

    async def fault(arena: Arena) -> Seen:
        await asyncio.sleep(60)
        return Seen("never")

    found = judged.bear(fault)
    assert (found.verdict, found.why) == (BROKE, ("not over after 0 s",))
    assert found.seconds < 5


def test_a_client_that_breaks_breaks_it(judged: Judged) -> None:
    async def fault(arena: Arena) -> Seen:
        raise aiohttp.ServerDisconnectedError

    assert judged.bear(fault).why == ("the fault's client broke",)


def test_without_bystanders(judged: Judged) -> None:
    found = judged.bear(harmless, alone=True)
    assert (found.verdict, found.others_saw) == (HELD, "–")


def test_trouble_in_the_log_is_told_from_then_on(judged: Judged) -> None:
    judged.log.write_text("ERROR: long ago\n")

    async def fault(arena: Arena) -> Seen:
        with judged.log.open("a") as log:
            log.write("INFO: fine\nTraceback (most recent call last):\nValueError: now\n")
        return Seen("nothing")

    found = judged.bear(fault)
    assert (
        found.server_did == "logged 2 lines of trouble, first: Traceback (most recent call last):"
    )
    assert found.verdict == HELD  # what is logged is told, not judged


def test_the_page_has_a_line_per_fault() -> None:
    outcomes = [
        Outcome("one", "a | b", "3 answers", "went on", "nothing", HELD, (), 1.2),
        outcome.skipped("two", "needs root"),
    ]
    record = {
        "outcomes": json.loads(json.dumps([each._asdict() for each in outcomes])),
        "command": "python -m loadtest chaos",
        "machine": {"name": "m", "processor": "p", "cores": 2, "memory_gib": 15},
        "versions": {"sglang": "0"},
    }
    page = outcome.markdown(record)
    assert "1 held, 1 skipped" in page
    assert "| one | a \\| b | 3 answers | went on | nothing | held | 1.2 |" in page
    assert "skipped: needs root" in page


def test_every_fault_has_one_name() -> None:
    assert not set(every.SHARED) & set(every.OWN)
    assert len({fault.name for fault in every.SHARED.values()}) == len(every.SHARED)


def test_a_fault_that_happens_again_replaces_what_was_said_of_it() -> None:
    one, two = (Outcome(name, "–", "–", "–", "–", BROKE) for name in ("one", "two"))
    mended, more = two._replace(verdict=HELD), one._replace(fault="three")
    assert outcome.renewed([one, two], [more, mended]) == [one, mended, more]
    kept = json.loads(json.dumps([each._asdict() for each in (one, mended)]))
    assert outcome.read({"outcomes": kept}) == [one, mended]
