"""What is compiled for the CPU runs, whether or not there is room to keep it."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
from numba.core import caching, config

from oea_server.routing import host


def one_more(number: int) -> int:
    return number + 1


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where numba keeps what it compiles."""
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path))
    return tmp_path


def test_it_is_kept(kept: Path) -> None:
    assert host.compiled(one_more)(1) == 2
    assert list(kept.rglob("*.nbc"))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_it_runs_where_it_cannot_be_kept(kept: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def save(*_: Any) -> None:
        raise OSError(number, "no")

    monkeypatch.setattr(caching.IndexDataCacheFile, "save", save)
    assert host.compiled(one_more)(1) == 2
    assert not list(kept.rglob("*.nbc"))
