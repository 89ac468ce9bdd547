"""One change at a time, in one process and in several."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys

import pytest

from oea_server.observe import turns

WORKER = """
import asyncio, os, sys
from oea_server.observe import turns

async def main():
    async with turns.turns(os.environ[turns.VARIABLE])():
        print("in", flush=True)
        sys.stdin.readline()
    print("out", flush=True)

asyncio.run(main())
"""


def test_in_one_process_the_second_waits_for_the_first() -> None:
    said = list[str]()

    async def change(turn: turns.Turn, name: str) -> None:
        async with turn():
            said.append(f"{name} in")
            await asyncio.sleep(0)
            said.append(f"{name} out")

    async def both() -> None:
        turn = turns.turns()
        await asyncio.gather(change(turn, "one"), change(turn, "two"))

    asyncio.run(both())
    assert said == ["one in", "one out", "two in", "two out"]


def test_between_processes_the_second_waits_for_the_first_to_end_or_die(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(turns.VARIABLE, raising=False)
    turns.share()
    shared = os.environ[turns.VARIABLE]
    try:
        for ends in ("its turn", "at all"):
            with subprocess.Popen(
                [sys.executable, "-c", WORKER],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            ) as worker:
                assert worker.stdin is not None
                assert worker.stdout is not None
                assert worker.stdout.readline() == "in\n"
                handle = os.open(shared, os.O_RDWR)
                assert not turns._taken(handle)
                if ends == "at all":
                    worker.kill()
                else:
                    worker.stdin.write("\n")
                    worker.stdin.flush()
                    assert worker.stdout.readline() == "out\n"
                worker.wait(30)
                assert turns._taken(handle)
                os.close(handle)
    finally:
        os.close(int(shared.rsplit("/", 1)[1]))


def test_a_turn_that_fails_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(turns.VARIABLE, raising=False)
    turns.share()
    shared = os.environ[turns.VARIABLE]

    async def twice() -> None:
        with pytest.raises(ValueError, match="refused"):
            async with turns.turns(shared)():
                raise ValueError("refused")
        async with asyncio.timeout(10), turns.turns(shared)():
            pass

    try:
        asyncio.run(twice())
    finally:
        os.close(int(shared.rsplit("/", 1)[1]))
