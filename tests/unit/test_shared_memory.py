"""A server whose processes could share no memory is refused before it starts any."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

import pytest

from oea_server.engine import shared_memory


def test_where_there_is_room_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_memory, "PLACE", str(tmp_path))
    assert shared_memory.problems() == []
    assert list(tmp_path.iterdir()) == []


def test_where_there_is_none_one_line_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int, offset: int, length: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shared_memory, "PLACE", str(tmp_path))
    monkeypatch.setattr(os, "posix_fallocate", full)
    (line,) = shared_memory.problems()
    assert line.startswith(f"{tmp_path}: No space left on device: ")


def test_where_nothing_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(**_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(shared_memory, "PLACE", str(tmp_path))
    monkeypatch.setattr(tempfile, "TemporaryFile", read_only)
    (line,) = shared_memory.problems()
    assert line.startswith(f"{tmp_path}: Read-only file system: ")


def test_a_file_system_that_cannot_reserve_is_none_of_our_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unable(handle: int, offset: int, length: int) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(shared_memory, "PLACE", str(tmp_path))
    monkeypatch.setattr(os, "posix_fallocate", unable)
    assert shared_memory.problems() == []


def test_a_machine_without_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_memory, "PLACE", str(tmp_path / "none"))
    assert shared_memory.problems() == []
