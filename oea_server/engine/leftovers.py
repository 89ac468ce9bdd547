"""The files that SGLang makes for a start and leaves: those of its sockets, and the memory that its
processes share.

It ends its processes by SIGKILL, the one that would clear away among them, and sweeps only in its
own CI."""

from __future__ import annotations

import atexit
import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

SCHEME = "ipc://"
SHARED = Path("/dev/shm")


def remove_at_end(port_args: Any) -> None:
    """Remove the files of a start when the first process of the start has ended properly. Called
    once all others run.

    Args:
        port_args: the start's `sglang.srt.server_args.PortArgs`.
    """
    import psutil  # type: ignore[import-untyped]

    own = psutil.Process()
    atexit.register(
        remove, sockets(port_args), patterns(port_args, [own, *own.children(recursive=True)])
    )


def sockets(port_args: Any) -> list[Path]:
    """Sockets that are files; with several machines some are TCP ports."""
    return files(getattr(port_args, name, None) for name in type(port_args).__annotations__)


def files(addresses: Iterable[Any]) -> list[Path]:
    """The sockets that are files."""
    return [
        Path(each.removeprefix(SCHEME))
        for each in addresses
        if isinstance(each, str) and each.startswith(SCHEME)
    ]


def patterns(port_args: Any, processes: Iterable[Any]) -> list[str]:
    """What the names in /dev/shm of a start's files look like: they hold who made them, or which
    start it was."""
    starts = [getattr(port_args, "instance_id", None), *(each.name for each in sockets(port_args))]
    return [f"sgl_shm_*_{each.pid}_*" for each in processes] + [
        f"sglang_loads_{each}_*" for each in starts if each
    ]


def remove(paths: Iterable[Path], shared: Iterable[str], place: Path = SHARED) -> None:
    """Remove files by their paths, and those in `place` by what their names look like."""
    for path in (*paths, *(found for pattern in shared for found in place.glob(pattern))):
        with contextlib.suppress(OSError):
            path.unlink()
