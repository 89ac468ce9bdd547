"""`oea-server patch` on copies of the installed SGLang's files."""

from __future__ import annotations

import base64
import csv
import hashlib
import os
import py_compile
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from importlib.util import cache_from_source, find_spec
from pathlib import Path

import pytest

from oea_server.patching import record, series, writing
from oea_server.patching.installed import PatchError, look

VERSION = version("sglang")
SERIES = series.read(VERSION)
FILES = series.files(SERIES)
OURS = Path(__file__).parents[2]
NEW = "sglang/srt/layers/moe/batch_routing.py"


def package() -> Path:
    spec = find_spec("sglang")
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(next(iter(spec.submodule_search_locations)))


RECORD = f"sglang-{VERSION}.dist-info/RECORD"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The files that the series touches, as released, with what a command needs to find them, and
    pip to list them."""
    shutil.copytree(
        package().parent / f"sglang-{VERSION}.dist-info", tmp_path / f"sglang-{VERSION}.dist-info"
    )
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
    environment = {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{OURS}"}
    command = [sys.executable, "-m", "oea_server", "patch", *words]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, cwd=root
    )


@pytest.mark.parametrize("each", series.versions())
def test_every_patch_says_what_it_changes_and_why(each: str) -> None:
    paths = series.paths(each)
    assert [path.parent.name[:5] for path in paths] == ["0001-", "0002-", "0003-"]
    for path in paths:
        header = path.read_text().split("\ndiff --git ")[0]
        for part in ("Subject: [PATCH", "\nWhat: ", "\nWhy: ", "\nUpstream: "):
            assert part in header


def test_there_are_patches_for_every_version_that_is_supported() -> None:
    assert series.versions() == [f"0.5.{minor}" for minor in range(17, 24)]


def test_each_patch_is_there_once_and_for_some_version() -> None:
    named = {path for version in series.versions() for path in series.paths(version)}
    there = sorted(series.FOLDER.glob("*/*.patch"))
    assert sorted(named) == there
    assert len({path.read_bytes() for path in there}) == len(there)


def test_the_command_lists_what_git_is_to_take(root: Path) -> None:
    done = command(root, "files", VERSION)
    assert [Path(line) for line in done.stdout.splitlines()] == series.paths(VERSION)
    done = command(root, "files", "0.5.16")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("oea-server: no patches for SGLang 0.5.16; there are some for ")


def test_apply_and_revert_come_back_to_the_byte(root: Path) -> None:
    before = texts(root)
    assert look(VERSION, root).state == "original"
    changed = look(VERSION, root).apply()
    assert sorted(changed) == sorted(root / name for name in FILES)
    assert look(VERSION, root).state == "patched"
    after = texts(root)
    assert set(after) == set(before) | {NEW}
    assert {name for name in before if before[name] != after[name]} == {*FILES, RECORD} - {NEW}
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
    for path in series.paths(VERSION):
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


def ended(text: str) -> str:
    return text + "x = 1\n"


def begun(text: str) -> str:
    return "# changed\n" + text


def emptied(text: str) -> str:
    return ""


def on_windows(text: str) -> str:
    return text.replace("\n", "\r\n")


def cut(text: str) -> str:
    return text.removesuffix("\n")


CHANGES = [ended, begun, emptied, on_windows, cut]


@pytest.mark.parametrize("state", ["original", "patched"])
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("name", [name for name in FILES if name != NEW])
def test_a_file_that_somebody_else_changed_is_refused_and_nothing_is_touched(
    root: Path, name: str, change: Callable[[str], str], state: str
) -> None:
    if state == "patched":
        look(VERSION, root).apply()
    path = root / name
    path.write_bytes(change(path.read_text()).encode())
    with pytest.raises(
        PatchError, match=rf"^{re.escape(name)}: neither as released .*; install SGLang anew$"
    ):
        look(VERSION, root)


@pytest.mark.parametrize("state", ["original", "patched"])
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_changed_file_of_ours_is_named_for_deletion(
    root: Path, change: Callable[[str], str], state: str
) -> None:
    """A new installation of SGLang would not touch it."""
    released = texts(root)
    look(VERSION, root).apply()
    ours = (root / NEW).read_text()
    if state == "original":
        look(VERSION, root).revert()
    (root / NEW).write_bytes(change(ours).encode())
    with pytest.raises(
        PatchError, match=f"^{re.escape(str(root / NEW))}: not as we add it, .*; delete it, then"
    ):
        look(VERSION, root)
    (root / NEW).unlink()
    look(VERSION, root).revert()
    assert texts(root) == released


@pytest.mark.parametrize("way", ["apply", "revert", "check"])
def test_what_is_refused_is_left_alone(root: Path, way: str) -> None:
    look(VERSION, root).apply()
    for name, content in ((NEW, b"\xff"), (FILES[1], b"\xff")):
        (root / name).write_bytes(content)
    before = texts(root)
    done = command(root, way)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(f"oea-server: {FILES[1]}: neither as released")
    assert str(root / NEW) in done.stderr
    assert texts(root) == before


def test_pip_is_told_of_the_file_that_is_added(root: Path) -> None:
    """And of what the others are now: hashes and sizes, as a wheel has them."""
    before = listed(root)
    look(VERSION, root).apply()
    after = listed(root)
    assert set(after) == set(before) | {NEW}
    assert [name for name in before if after[name] != before[name]] == sorted(set(FILES) - {NEW})
    for name in FILES:
        content = (root / name).read_bytes()
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
        assert after[name] == [f"sha256={digest}", str(len(content))]


def listed(root: Path) -> dict[str, list[str]]:
    with (root / RECORD).open(newline="") as file:
        return {name: rest for name, *rest in csv.reader(file)}


@pytest.mark.parametrize("way", ["apply", "revert"])
def test_an_earlier_patch_that_told_nobody_is_made_good(root: Path, way: str) -> None:
    released = texts(root)
    look(VERSION, root).apply()
    whole = texts(root)
    (root / RECORD).write_bytes(released[RECORD])
    getattr(look(VERSION, root), way)()
    assert texts(root) == (whole if way == "apply" else released)


RECORDS = {
    "pip's": lambda text: text.replace("\n", "\r\n"),
    "without an end": lambda text: text.removesuffix("\n"),
    "without hashes": lambda text: "".join(
        f"{line.split(',')[0]},,\n" for line in text.splitlines()
    ),
    "not in order": lambda text: "".join(sorted(text.splitlines(keepends=True), reverse=True)),
    "of an editable installation": lambda text: "__editable__.sglang.pth,sha256=a,9\n",
    "empty": lambda text: "",
    "of names that are not UTF-8": lambda text: text + "x\udcff.py,,\n",
}


@pytest.mark.parametrize("which", RECORDS)
def test_a_record_of_any_kind_comes_back_to_the_byte(root: Path, which: str) -> None:
    text = RECORDS[which]((root / RECORD).read_bytes().decode())
    (root / RECORD).write_bytes(text.encode(errors="surrogateescape"))
    before = texts(root)
    look(VERSION, root).apply()
    names = (root / RECORD).read_bytes().split(b"\n")
    ours = [line for line in names if line.startswith(NEW.encode())]
    assert len(ours) == ("sglang/" in text)
    assert all(line.endswith(b"\r") == ("\r" in text) for line in ours)
    look(VERSION, root).revert()
    assert texts(root) == before


def test_a_copy_without_a_record_is_patched_all_the_same(root: Path) -> None:
    shutil.rmtree(root / f"sglang-{VERSION}.dist-info")
    assert record.find(root, VERSION) is None
    look(VERSION, root).apply()
    assert look(VERSION, root).state == "patched"


def test_what_a_replaced_sglang_left_behind_counts_as_released(root: Path) -> None:
    released = texts(root)
    look(VERSION, root).apply()
    whole, ours = texts(root), (root / NEW).read_bytes()
    look(VERSION, root).revert()
    (root / NEW).write_bytes(ours)
    assert look(VERSION, root).state == "original"
    done = command(root, "check")
    assert done.returncode == 1
    assert f"as released; {NEW} was left behind" in done.stdout
    done = command(root, "revert")
    assert done.stdout == f"SGLang {VERSION}: as released, 1 file\n"
    assert texts(root) == released
    (root / NEW).write_bytes(ours)
    look(VERSION, root).apply()
    assert texts(root) == whole


def test_under_a_version_without_patches_the_file_to_delete_is_named(root: Path) -> None:
    (root / NEW).write_text("whatever another release adds\n")
    with pytest.raises(
        PatchError, match=f"; {re.escape(str(root / NEW))} was left behind .*: delete it$"
    ):
        look("0.5.24", root)


@pytest.mark.parametrize("way", ["apply", "revert"])
@pytest.mark.parametrize("at", range(len(FILES) + 1))
def test_what_a_killed_one_leaves_is_swept(root: Path, way: str, at: int) -> None:
    """A process that is killed before its first, second ... renaming, and then what it was about to
    do again."""
    released = texts(root)
    look(VERSION, root).apply()
    whole = texts(root)
    if way == "apply":
        look(VERSION, root).revert()
    script = f"""
import os, signal
from pathlib import Path
from oea_server.patching import writing
from oea_server.patching.installed import look
put, times = writing._put, []
def dying(path, new):
    times.append(path)
    if len(times) == {at + 1}:
        os.kill(os.getpid(), signal.SIGKILL)
    put(path, new)
writing._put = dying
look({VERSION!r}, Path({str(root)!r})).{way}()
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -signal.SIGKILL
    assert set(texts(root)) - set(whole)
    for again in (way, "revert"):
        getattr(look(VERSION, root), again)()
        assert texts(root) == (whole if again == "apply" else released)


def test_only_scratch_files_of_ours_are_swept(root: Path) -> None:
    for name in (".topk.py.swp", ".topk.py.abcdefgh.bak", ".other.py.abcdefgh"):
        (root / FILES[1]).with_name(name).write_text("somebody's\n")
    (root / FILES[1]).with_name(".topk.py.abcd_123").write_text("ours\n")
    before = set(texts(root))
    look(VERSION, root).revert()
    assert before - set(texts(root)) == {str(Path(FILES[1]).with_name(".topk.py.abcd_123"))}


def test_what_python_compiled_of_our_file_goes_with_it(root: Path) -> None:
    """Uninstalling would leave it, and its folder."""
    look(VERSION, root).apply()
    compiled = Path(cache_from_source(str(root / NEW)))
    py_compile.compile(str(root / NEW), doraise=True)
    assert compiled.exists()
    look(VERSION, root).revert()
    assert not compiled.exists()


@pytest.mark.parametrize("release", ["0.5.16", "0.5.24", "0.5.23.post1"])
def test_a_version_without_patches_is_refused(root: Path, release: str) -> None:
    with pytest.raises(
        PatchError, match=rf"^no patches for SGLang {release}; there are some for 0.5.17, .*0.5.23$"
    ):
        look(release, root)


@pytest.mark.parametrize("way", ["apply", "revert"])
@pytest.mark.parametrize("at", range(len(FILES) + 1))
def test_a_disk_that_fails_in_between_leaves_everything_as_it_was(
    root: Path, way: str, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if way == "revert":
        look(VERSION, root).apply()
    before = texts(root)
    put, times = writing._put, 0

    def failing(path: Path, new: str | None) -> None:
        nonlocal times
        times += 1
        if times == at + 1:
            raise OSError(28, "No space left on device", str(path))
        put(path, new)

    monkeypatch.setattr(writing, "_put", failing)
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
