"""What a server leaves where it ran: processes, its port, shared memory, temporary files.

All processes of a server are of the session that it was started in, so that they are found when
whoever started them is dead and they belong to nobody."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from loadtest.chaos.arena import DEADLINE
from oea_server.client.server import Server

SHARED_MEMORY = "/dev/shm/"
KNOWN = (f"{SHARED_MEMORY}sglang_loads_",)
"""What SGLang is known to leave (docs/load-testing.md)."""


def family(running: Server) -> list[psutil.Process]:
    """The server's processes that run."""
    assert running.process is not None
    return of_session(running.process.pid)


def of_session(number: int) -> list[psutil.Process]:
    """Processes of a session that run."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(OSError, psutil.Error):
            if os.getsid(process.pid) == number and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def names(processes: list[psutil.Process]) -> list[str]:
    """What they call themselves, and their ids."""
    found = []
    for process in processes:
        with contextlib.suppress(psutil.Error):
            title = " ".join(process.cmdline()).strip() or process.name()
            found.append(f"{title[:40]} ({process.pid})")
    return found


def shared_memory(running: Server) -> set[str]:
    """Files in /dev/shm that the server's processes use. Asked while it runs."""
    found = set[str]()
    for process in family(running):
        with contextlib.suppress(OSError, psutil.Error):
            found |= {
                each.path for each in process.memory_maps() if each.path.startswith(SHARED_MEMORY)
            }
            found |= {
                each.path for each in process.open_files() if each.path.startswith(SHARED_MEMORY)
            }
    return {path for path in found if os.path.exists(path)}


def left(
    running: Server, shared: set[str], temporary: Path | None = None, patience: float | None = None
) -> list[str]:
    """What is still there when the server should be gone, a line each; waits for it to go.

    Args:
        shared: what `shared_memory` found.
        temporary: a folder for its temporary files alone, which should be empty.
        patience: seconds in which it has to go, DEADLINE if not given.
    """
    deadline = time.monotonic() + (patience or DEADLINE)
    while (processes := family(running)) and time.monotonic() < deadline:
        time.sleep(0.2)
    found = [f"process {name}" for name in names(processes)]
    if not processes and not free(running.port):
        found.append(f"port {running.port} is taken")
    found += [path for path in sorted(shared) if os.path.exists(path)]
    return found + [str(path) for path in _files(temporary)]


def apart(found: list[str]) -> tuple[list[str], list[str]]:
    """What is wrong with what was left, and what is SGLang's own, by its kind."""
    known = [each for each in KNOWN if any(line.startswith(each) for line in found)]
    return [f"left: {line}" for line in found if not line.startswith(KNOWN)], [
        f"leaves {each}*" for each in known
    ]


def free(port: int) -> bool:
    """Whether a server can listen there."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def clear(running: Server) -> None:
    """Kill what is left of it."""
    for process in family(running):
        with contextlib.suppress(psutil.Error):
            process.kill()


def sweep(shared: set[str]) -> None:
    """Remove what a server left of its shared memory: each start that is killed would keep up to 24
    MiB of it.

    Args:
        shared: what `shared_memory` found.
    """
    for path in shared:
        with contextlib.suppress(OSError):
            os.unlink(path)


def _files(folder: Path | None) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if not path.is_dir()) if folder else iter(())
