"""`oea-server patch` on copies of the installed SGLang's files."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import pytest

from oea_server.patching import installed, series
from oea_server.patching.installed import PatchError, look

VERSION = version("sglang")
SERIES = series.read(VERSION)
FILES = series.files(SERIES)
NEW = "sglang/srt/layers/moe/batch_routing.py"


def package() -> Path:
    spec = find_spec("sglang")
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(next(iter(spec.submodule_search_locations)))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The files that the series touches, as released, with what a command needs to find them."""
    for name in ["sglang/__init__.py", *FILES]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        if name != NEW:
            shutil.copy(package().parent / name, tmp_path / name)
    return tmp_path


def texts(root: Path) -> dict[str, bytes]:
    """Every file below, but what Python makes by itself."""
    found = [path for path in root.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(found)}


def command(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(root)}
    command = [sys.executable, "-m", "oea_server", "patch", *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=root)


@pytest.mark.parametrize("each", series.versions())
def test_every_patch_says_what_it_changes_and_why(each: str) -> None:
    paths = sorted((series.FOLDER / f"sglang-{each}").glob("*.patch"))
    assert [path.name[:5] for path in paths] == ["0001-", "0002-", "0003-"]
    for path in paths:
        header = path.read_text().split("\ndiff --git ")[0]
        for part in ("Subject: [PATCH", "\nWhat: ", "\nWhy: ", "\nUpstream: "):
            assert part in header


def test_there_are_patches_for_every_version_that_is_supported() -> None:
    assert series.versions() == [f"0.5.{minor}" for minor in range(17, 24)]


def test_apply_and_revert_come_back_to_the_byte(root: Path) -> None:
    before = texts(root)
    assert look(VERSION, root).state == "original"
    changed = look(VERSION, root).apply()
    assert sorted(changed) == sorted(root / name for name in FILES)
    assert look(VERSION, root).state == "patched"
    after = texts(root)
    assert set(after) == set(before) | {NEW}
    assert look(VERSION, root).apply() == []
    assert texts(root) == after
    assert sorted(look(VERSION, root).revert()) == sorted(changed)
    assert texts(root) == before
    assert look(VERSION, root).revert() == []
    for name in FILES:
        compile(after[name], name, "exec")


def test_git_makes_the_same_of_it(root: Path) -> None:
    """`git apply`, as whoever builds SGLang from source would."""
    theirs = root / "git/python"
    shutil.copytree(root / "sglang", theirs / "sglang")
    subprocess.run(["git", "init", "-q"], cwd=root / "git", check=True)
    for path in sorted((series.FOLDER / f"sglang-{VERSION}").glob("*.patch")):
        subprocess.run(["git", "apply", str(path.resolve())], cwd=root / "git", check=True)
    look(VERSION, root).apply()
    assert {name: (theirs / name).read_bytes() for name in FILES} == {
        name: (root / name).read_bytes() for name in FILES
    }


def test_rights_stay(root: Path) -> None:
    (root / FILES[1]).chmod(0o640)
    look(VERSION, root).apply()
    assert (root / FILES[1]).stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("way", ["apply", "revert"])
def test_half_a_patch_is_seen_and_made_whole(root: Path, way: str) -> None:
    released = texts(root)
    look(VERSION, root).apply()
    whole = texts(root)
    (root / FILES[1]).write_bytes(released[FILES[1]])
    half = look(VERSION, root)
    assert half.state == "half"
    done = command(root, "check")
    assert done.returncode == 1
    assert f"half patched, without {Path(FILES[1]).name}" in done.stdout
    getattr(half, way)()
    assert texts(root) == (whole if way == "apply" else released)


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_somebody_else_changed_is_refused_and_nothing_is_touched(root: Path, name: str) -> None:
    path = root / name
    path.write_text(("# changed\n" + path.read_text()) if path.exists() else "# somebody's\n")
    before = texts(root)
    with pytest.raises(PatchError, match="neither as released") as refused:
        look(VERSION, root)
    assert name in str(refused.value)
    done = command(root, "apply")
    assert done.returncode == 2
    assert done.stderr == f"oea-server: {refused.value}\n"
    assert texts(root) == before


@pytest.mark.parametrize("release", ["0.5.16", "0.5.24", "0.5.23.post1"])
def test_a_version_without_patches_is_refused(root: Path, release: str) -> None:
    with pytest.raises(PatchError, match=rf"^no patches for SGLang {release}; there are some for 0.5.17, .*0.5.23$"):
        look(release, root)


@pytest.mark.parametrize("way", ["apply", "revert"])
@pytest.mark.parametrize("at", range(len(FILES)))
def test_a_disk_that_fails_in_between_leaves_everything_as_it_was(
    root: Path, way: str, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if way == "revert":
        look(VERSION, root).apply()
    before = texts(root)
    put, times = installed._put, 0

    def failing(path: Path, new: str | None) -> None:
        nonlocal times
        times += 1
        if times == at + 1:
            raise OSError(28, "No space left on device", str(path))
        put(path, new)

    monkeypatch.setattr(installed, "_put", failing)
    with pytest.raises(PatchError, match="No space left on device; nothing was changed"):
        getattr(look(VERSION, root), way)()
    assert texts(root) == before


def test_the_command(root: Path) -> None:
    done = command(root, "check")
    assert (done.returncode, done.stdout.splitlines()[0]) == (
        1,
        f"SGLang {VERSION}: as released; oea-server patch apply would patch it",
    )
    for words, said in (
        ("apply", f"SGLang {VERSION}: patched, {len(FILES)} files"),
        ("apply", f"SGLang {VERSION}: was patched already"),
        ("check", f"SGLang {VERSION}: patched"),
        ("revert", f"SGLang {VERSION}: as released, {len(FILES)} files"),
        ("revert", f"SGLang {VERSION}: was not patched"),
    ):
        done = command(root, words)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.splitlines()[0] == said


def test_the_commands_do_not_import_sglang(root: Path) -> None:
    (root / "sglang/__init__.py").write_text("raise SystemExit('imported')\n")
    assert command(root, "apply").returncode == 0


def test_a_module_is_there_before_others_import_it() -> None:
    assert FILES[0] == NEW
