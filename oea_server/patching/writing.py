"""Several files written together: all of them, or none; and what an interrupted try left behind."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path


def write(contents: Mapping[Path, bytes | None]) -> None:
    """Give files new contents, in this order; None deletes. All of them, or none if one cannot be
    written.

    Raises:
        OSError: a folder or a file cannot be written; everything is as it was.
    """
    before = {path: path.read_bytes() if path.exists() else None for path in contents}
    ready: dict[Path, str | None] = {}
    try:
        for path, content in contents.items():
            ready[path] = None if content is None else _beside(path, content)
        done: list[Path] = []
        try:
            for path, new in ready.items():
                _put(path, new)
                done.append(path)
        except BaseException:  # a Ctrl-C as well
            for path in reversed(done):
                old = before[path]
                _put(path, None if old is None else _beside(path, old))
            raise
    finally:
        for new in ready.values():
            if new is not None:
                Path(new).unlink(missing_ok=True)


def sweep(paths: Iterable[Path]) -> None:
    """Delete what a `write` of these files that was killed has left beside them.

    Raises:
        OSError: a folder cannot be written.
    """
    for path in paths:
        # as `tempfile` names them
        scratch = re.compile(re.escape(f".{path.name}.") + "[a-z0-9_]{8}")
        for each in path.parent.glob(f".{path.name}.*"):
            if scratch.fullmatch(each.name):
                each.unlink(missing_ok=True)


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Wait until no other process is in here for this folder: it would sweep what this one is about
    to rename."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _beside(path: Path, content: bytes) -> str:
    """A file next to `path` with its rights, to be renamed to it."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(handle)
    os.chmod(name, path.stat().st_mode & 0o777 if path.exists() else 0o644)
    return name


def _put(path: Path, new: str | None) -> None:
    if new is None:
        path.unlink()
        for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
            compiled.unlink(missing_ok=True)  # an uninstall would leave it, and so the folder
    else:
        os.replace(new, path)
