"""The files behind the sockets by which SGLang's processes talk: it makes some for each start, and leaves them all."""

from __future__ import annotations

import atexit
import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

SCHEME = "ipc://"


def remove_at_end(port_args: Any) -> None:
    """Remove those of a start's `sglang.srt.server_args.PortArgs` when this process has ended properly."""
    atexit.register(remove, files(port_args))


def files(port_args: Any) -> list[Path]:
    """Those that are files; with several machines some are TCP ports."""
    addresses = [getattr(port_args, name, None) for name in type(port_args).__annotations__]
    return [Path(each.removeprefix(SCHEME)) for each in addresses if isinstance(each, str) and each.startswith(SCHEME)]


def remove(paths: Iterable[Path]) -> None:
    for path in paths:
        with contextlib.suppress(OSError):
            path.unlink()
