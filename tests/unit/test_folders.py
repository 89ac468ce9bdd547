"""Folders of users of all kinds; what cannot be written to is named before SGLang ends over it."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from oea_server import folders
from oea_server.cli import app


@contextmanager
def user(uid: int, gid: int) -> Iterator[None]:
    """As an arbitrary user id, which only root can take on."""
    if os.geteuid():
        pytest.skip("needs root")
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(gid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


@pytest.fixture
def cache() -> Iterator[Path]:
    """A folder below one that everybody may enter."""
    with tempfile.TemporaryDirectory(prefix="oea-cache-") as name:
        os.chmod(name, 0o755)
        place = Path(name) / "cache"
        place.mkdir()
        yield place


@pytest.mark.parametrize(
    ("owner", "mode", "uid", "gid", "can"),
    [
        ((10001, 10001), 0o755, 1000660000, 0, False),
        ((10001, 0), 0o775, 1000660000, 0, True),
        ((10001, 0), 0o755, 1000660000, 0, False),
        ((10001, 0), 0o775, 10001, 10001, True),
        ((10001, 0), 0o775, 1000660000, 1000660000, False),
        ((0, 0), 0o555, 1000660000, 0, False),
    ],
)
@pytest.mark.parametrize("below", ["", "inductor", "a/b/c"])
def test_who_can_write(
    cache: Path, owner: tuple[int, int], mode: int, uid: int, gid: int, can: bool, below: str
) -> None:
    os.chown(cache, *owner)
    cache.chmod(mode)
    place = cache / below
    with user(uid, gid):
        why = folders.unwritable(place)
        said = folders.fact({**HARMLESS, folders.INDUCTOR: str(place)})
        problems = folders.problems({**HARMLESS, folders.INDUCTOR: str(place)})
    assert list(cache.iterdir()) == []
    if can:
        assert (why, said, problems) == (None, None, [])
    else:
        assert why == ("Permission denied" if not below else f"Permission denied in {cache}")
        assert (
            said
            == f"user {uid} of group {gid} cannot write to {place} (TORCHINDUCTOR_CACHE_DIR): {why}"
        )
        # a folder that is there is only read at first
        assert len(problems) == bool(below)
        assert all(
            f"{place} cannot be made: {why}; name a folder that user {uid}" in each
            for each in problems
        )


HARMLESS = {
    name: tempfile.gettempdir() for name in ("SGLANG_CACHE_DIR", "HF_HOME", "TRITON_CACHE_DIR")
}


@pytest.mark.parametrize("below", ["", "a", "a/b"])
def test_a_file_where_a_folder_should_be(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("")
    why = folders.unwritable(tmp_path / "file" / below)
    assert why is not None
    assert why.startswith(os.strerror(errno.ENOTDIR))


def test_a_link_to_nowhere_and_one_to_itself(tmp_path: Path) -> None:
    (tmp_path / "nowhere").symlink_to(tmp_path / "missing")
    (tmp_path / "itself").symlink_to("itself")
    assert folders.unwritable(tmp_path / "nowhere") == os.strerror(errno.ENOENT)
    assert folders.unwritable(tmp_path / "itself") == os.strerror(errno.ELOOP)


VARIABLES = (
    "HF_HUB_CACHE",
    folders.INDUCTOR,
    "TRITON_CACHE_DIR",
    "FLASHINFER_WORKSPACE_BASE",
    "CUDA_CACHE_PATH",
)


@pytest.mark.parametrize("name", [*VARIABLES, *folders.WHERE_SET])
def test_each_folder_is_named_with_its_variable(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    said = folders.fact({**HARMLESS, name: str(tmp_path / "file/x")})
    assert said is not None
    assert f"cannot write to {tmp_path}/file/x ({name}): Not a directory in {tmp_path}/file" in said
    assert len(said.splitlines()) == 1


def test_a_name_cannot_forge_a_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    environ = {**HARMLESS, folders.INDUCTOR: str(tmp_path / "file/x\ny\x1b[2J")}
    for said in (folders.fact(environ), *folders.problems(environ)):
        assert said is not None
        assert said.isprintable()


def test_no_folder_for_temporary_files(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(tempfile, "gettempdir", none)
    (line,) = folders.problems({})
    assert line.startswith("TMPDIR: No usable temporary directory found in ['/tmp']; name a folder")


@pytest.mark.parametrize("command", ["serve", "doctor"])
def test_serve_and_doctor_say_it_in_one_line(
    tmp_path: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(folders.INDUCTOR, str(tmp_path / "file/x"))
    done = CliRunner().invoke(app, [command])
    assert done.exit_code == {"serve": 2, "doctor": 1}[command]
    said = done.stderr if command == "serve" else done.stdout
    assert (
        f"TORCHINDUCTOR_CACHE_DIR: {tmp_path}/file/x cannot be made: Not a directory in"
        f" {tmp_path}/file; name a" in said
    )
    if command == "serve":
        assert len(said.splitlines()) == 1


def test_doctor_names_folders_that_are_needed_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from oea_server import doctor

    class StoppedError(doctor.RefusedError):
        pass

    def stopped() -> None:
        raise StoppedError(["far enough"])

    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "file/x"))
    monkeypatch.setattr(doctor, "engine_facts", stopped)
    found = doctor.look([])
    assert [name for name, _ in found.facts] == ["folders"]
    assert f"{tmp_path}/file/x (TRITON_CACHE_DIR)" in found.facts[0][1]
