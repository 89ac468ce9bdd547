"""Files that do not belong into the metrics' folder, put there while the server runs."""

from __future__ import annotations

import asyncio
import functools
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

from loadtest.chaos.arena import DEADLINE, PROMPTS, Arena, body, server
from loadtest.chaos.outcome import Outcome, Seen
from loadtest.client import chat, session

COUNTED = "oea_decode_batch_size_sum"
"""Tokens that decode steps made."""
TOKENS = 16
PATIENCE = 90.0
"""Seconds for all of it, on a busy machine."""
LOOK = 3.0
"""Seconds in which whoever looks once a second has to complain once."""
NOBODY = 999_999_999
"""No process's id."""


def _of_another_process(place: Path) -> None:
    """A file that prometheus_client itself wrote, of a metric of ours, in a process that is none of
    the server's."""
    program = (
        f"from prometheus_client import Histogram; Histogram({COUNTED.removesuffix('_sum')!r},"
        " 'x').observe(1e9)"
    )
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(place)}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)


def _copied(place: Path) -> None:
    """The server's own files, as a backup leaves them under other names."""
    for file in [*place.glob("*.db"), *place.glob("*.oea")]:
        kind, _, _ = file.stem.rpartition("_")
        (place / f"{kind}_{NOBODY}.db" if kind else place / f"{NOBODY}.oea").write_bytes(
            file.read_bytes()
        )


FOREIGN: dict[str, Callable[[Path], object]] = {
    "copies of its own": _copied,  # the first: of nothing else
    "empty": lambda place: (place / "counter_1.db").touch(),
    "zeros": lambda place: (place / "counter_2.db").write_bytes(bytes(4096)),
    "garbage": lambda place: (place / "histogram_3.db").write_bytes(bytes(range(1, 256)) * 64),
    "text": lambda place: (place / "gauge_all_4.db").write_text("no metrics\n"),
    "a folder": lambda place: (place / "x.db").mkdir(),
    "a folder with a right name": lambda place: (place / "counter_5.db").mkdir(),
    "a link to nothing": lambda place: (place / "counter_6.db").symlink_to(place / "nothing"),
    "a pipe": lambda place: os.mkfifo(place / "counter_7.db"),
    "unreadable": lambda place: os.close(
        os.open(place / "counter_8.db", os.O_CREAT | os.O_WRONLY, 0)
    ),
    "an empty snapshot": lambda place: (place / "9.oea").touch(),
    "another process's": _of_another_process,
}


async def foreign_files() -> Outcome:
    """All of them at once."""
    with (
        tempfile.TemporaryDirectory(prefix="loadtest-metrics-") as folder,
        server(environment={"PROMETHEUS_MULTIPROC_DIR": folder}) as running,
    ):
        arena = Arena(running, None, None)
        await arena.learn()
        # alone: the tokens that are counted have to be those that were asked for
        fault = functools.partial(_put, folder=Path(folder))
        return await arena.bear(
            "foreign files among the metrics", fault, alone=True, deadline=PATIENCE
        )


async def _put(arena: Arena, folder: Path) -> Seen:
    """The same chats before and after: as much has to be counted."""
    (place,) = folder.glob("oea-*")
    mark = arena.running.log.stat().st_size
    wrong = list[str]()
    async with session(timeout=DEADLINE) as http:
        counted = [await _settled(arena)]
        for _ in range(2):
            await asyncio.gather(*(chat(http, arena.url, body(each, TOKENS)) for each in PROMPTS))
            counted.append(await _settled(arena))
            for put in FOREIGN.values() if len(counted) == 2 else ():
                await asyncio.to_thread(put, place)
        first, second = ([b - a for a, b in zip(*pair, strict=True)] for pair in pairwise(counted))
        if first != second or min(first) == 0:
            wrong.append(
                f"tokens by /metrics and /oea/stats: {first} before, {second} with them there"
            )
    await asyncio.sleep(LOOK)
    with arena.running.log.open("rb") as log:
        log.seek(mark)
        said = log.read().decode(errors="replace").splitlines()
    complaints = [re.split(" passed over ", line)[-1] for line in said if " passed over " in line]
    if len(complaints) != len(set(complaints)):
        wrong.append("a file is complained of more than once")
    if unnamed := [
        name
        for name in _foreign(place)
        if not any(each.startswith(f"{name}: ") for each in complaints)
    ]:
        wrong.append(f"not named in the log: {', '.join(unnamed)}")
    if tracebacks := sum("Traceback" in line for line in said):
        wrong.append(f"{tracebacks} tracebacks")
    what = (
        f"{len(FOREIGN)} kinds of files; all counts right; {len(complaints)} files named in the"
        " log, once each"
    )
    return Seen(what, tuple(wrong))


def _foreign(place: Path) -> list[str]:
    """Files that no process of the server made."""
    return [
        str(each)
        for each in place.iterdir()
        if re.fullmatch(rf"(.*_)?([0-9x]|{NOBODY})\.(db|oea)", each.name)
    ]


async def _settled(arena: Arena) -> tuple[float, float]:
    """Tokens of decode steps by /metrics, and by /oea/stats, when all is in them."""
    metrics = await asyncio.to_thread(arena.reader.settled_metrics)
    stats = await asyncio.to_thread(arena.reader.stats)
    return metrics[COUNTED], stats["total"]["tokens"]
