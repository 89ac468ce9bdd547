"""A start's own folder: whatever others left or still write in the folder that is given."""

from __future__ import annotations

import atexit
import errno
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from oea_server.engine import metrics_folder
from oea_server.observe import folder

START = (
    "import sys, time\n"
    "from oea_server.observe import folder\n"
    "print(folder.make(), flush=True)\n"
    "sys.stdin.read()\n"  # until the test closes it
)


@pytest.fixture(autouse=True)
def at_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[tuple[Any, ...]]]:
    """What would be done at this process's end; the folder that is given is the test's."""
    asked: list[tuple[Any, ...]] = []
    monkeypatch.setattr(atexit, "register", lambda *of: asked.append(of))
    monkeypatch.setenv(folder.VARIABLE, str(tmp_path))
    monkeypatch.setattr(folder, "_held", [])
    yield asked
    for handle in folder._held:
        os.close(handle)


@contextmanager
def started(**environment: str) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """Another start, in a process of its own, with its folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", START],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        try:
            yield process, Path(process.stdout.readline().strip())
        finally:
            process.stdin.close()


def test_it_lies_in_the_given_folder_for_this_process_and_its_children(tmp_path: Path) -> None:
    (tmp_path / "counter_7.db").write_bytes(b"an earlier start's")
    place = folder.make()
    assert place.parent == tmp_path
    assert place.stat().st_mode & 0o777 == 0o700
    assert list(place.iterdir()) == []
    assert os.environ[folder.VARIABLE] == str(place)
    assert folder.current() == place


@pytest.mark.parametrize("given", [None, ""])
def test_without_a_given_folder_it_is_a_temporary_one(
    given: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    if given is None:
        monkeypatch.delenv(folder.VARIABLE)
    else:
        monkeypatch.setenv(folder.VARIABLE, given)
    assert folder.current() is None
    assert folder.make().parent == tmp_path


def test_a_relative_name_is_of_where_the_start_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "kept").mkdir()
    monkeypatch.setenv(folder.VARIABLE, "kept")
    assert folder.make().parent == tmp_path / "kept"


def test_a_folder_that_is_only_given_is_nobodys_own() -> None:
    """Without metrics no folder is made, and what lies in the given one is others'."""
    assert folder.current() is None


def test_starts_with_one_folder_have_one_each(tmp_path: Path) -> None:
    with started() as (_, one), started() as (_, other):
        assert one != other
        assert {one.parent, other.parent} == {tmp_path}
        assert one.is_dir()
        assert other.is_dir()


def test_a_start_within_a_start_lies_beside_it(tmp_path: Path) -> None:
    outer = folder.make()  # its variable is handed on to whatever runs below it
    with started() as (_, inner):
        assert inner.parent == tmp_path
        assert inner != outer
    assert folder.make() not in (inner, outer)  # nor do two starts of one process share one
    assert outer.is_dir()


def test_what_a_killed_start_left_is_swept(tmp_path: Path) -> None:
    with started() as (process, left):
        (left / "gauge_min_7.db").write_bytes(b"oea_router_active 0")
        (left / "tmpabc").mkdir()
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert left.is_dir()
    mine = folder.make()
    assert list(tmp_path.iterdir()) == [mine]


def test_what_a_start_in_use_or_somebody_else_has_there_stays(tmp_path: Path) -> None:
    (elsewhere := tmp_path / "elsewhere").mkdir()
    (elsewhere / "precious").touch()
    name = "oea-" + 31 * "0"
    (tmp_path / f"{name}1").symlink_to(elsewhere)
    (tmp_path / f"{name}2").write_text("a file")
    for other in ("oea-results", f"{name}22", "tmpabc", "0" * 32):
        (tmp_path / other).mkdir()
    (tmp_path / "counter_7.db").touch()
    before = sorted(tmp_path.iterdir())
    with started() as (_, running):
        mine = folder.make()
        assert sorted(tmp_path.iterdir()) == sorted([*before, running, mine])
        assert (elsewhere / "precious").exists()


def test_another_users_folder_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (theirs := tmp_path / f"oea-{'a' * 32}").mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: theirs.stat().st_uid + 1)
    folder.make()
    assert theirs.is_dir()


def test_where_nothing_can_be_locked_nothing_is_swept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: Any) -> None:
        raise OSError(errno.EBADF, "NFS has no locks on folders")

    (left := tmp_path / f"oea-{'a' * 32}").mkdir()
    monkeypatch.setattr(fcntl, "flock", none)
    assert folder.make().is_dir()
    assert left.is_dir()


def test_one_that_is_swept_while_it_is_made_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked, lock = list[Path](), folder._locked

    def late(place: Path) -> int | None:
        locked.append(place)
        if len(locked) == 1:
            shutil.rmtree(place)
        if len(locked) == 2:
            raise BlockingIOError
        return lock(place)

    monkeypatch.setattr(folder, "_locked", late)
    assert folder.make() == locked[2]
    assert locked[2].is_dir()


def test_it_goes_with_its_process_and_not_with_a_fork(
    at_end: list[tuple[Any, ...]], tmp_path: Path
) -> None:
    place = folder.make()
    (place / "counter_7.db").touch()
    ((remove, *of),) = at_end
    remove(of[0], os.getpid() + 1)
    assert place.is_dir()
    remove(*of)
    assert not place.exists()
    with started() as (_, other):
        pass
    assert not other.exists()


@pytest.mark.parametrize("given", ["missing", "file", "file/below"])
def test_no_place_for_it_is_a_refusal_in_one_line(
    given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(folder.VARIABLE, str(tmp_path / given))
    with pytest.raises(SystemExit) as ended:
        metrics_folder.before_set_prometheus_multiproc_dir()
    (line,) = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2
    assert line.startswith(f"oea-server: refusing to start: {folder.VARIABLE}={tmp_path / given}: ")


def test_no_room_for_it_is_a_refusal_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "mkdir", full)
    with pytest.raises(SystemExit):
        metrics_folder.before_set_prometheus_multiproc_dir()
    assert ": No space left on device; name one that" in capsys.readouterr().err


def test_no_folder_for_temporary_files_is_a_refusal_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(folder.VARIABLE)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with pytest.raises(SystemExit):
        metrics_folder.before_set_prometheus_multiproc_dir()
    (line,) = capsys.readouterr().err.splitlines()
    assert (
        "temporary files (TMPDIR): no folder for the metrics can be made in it: No such file"
        in line
    )
    assert line.endswith("; name one that can be written to (PROMETHEUS_MULTIPROC_DIR)")
