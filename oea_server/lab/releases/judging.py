"""A series of patches held to its release: what `oea-server patch` promises, tried on a copy."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from oea_server.patching import record, series
from oea_server.patching.installed import PatchError, look


class UnlikeError(Exception):
    """Where a series and its release do not fit: one line."""


def judge(version: str, root: Path) -> dict[str, Any]:
    """Hold the series of a version to the sources in `root`/sglang, which stay as they are.

    Applied, each file is what `git apply` makes of it, and compiles; reverted, it is the release's
    to the byte.

    Returns:
        What was found: the digest of the series, and git's names of each file before and after it.

    Raises:
        UnlikeError: one of these does not hold.
    """
    patches = series.read(version)
    names = series.files(patches)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "ours"
        _copy(root, copy, names, version)
        released = _contents(copy)
        theirs = _by_git(copy, Path(folder) / "git", version, names)
        try:
            installed = look(version, copy)
            if installed.state != "original":
                raise UnlikeError(f"SGLang {version} is {installed.state}, not as released")
            installed.apply()
            _compare(version, {name: (copy / name).read_bytes() for name in names}, theirs)
            look(version, copy).revert()
        except PatchError as error:
            raise UnlikeError(str(error)) from error
        if _contents(copy) != released:
            raise UnlikeError(f"SGLang {version}: reverted, it is not as released")
    return {
        "series": digest(version),
        "files": {name: list(series.ends(patches, name)) for name in names},
    }


def digest(version: str) -> str:
    """SHA-256 of a version's series, one patch behind the other."""
    return hashlib.sha256(b"".join(path.read_bytes() for path in series.paths(version))).hexdigest()


def _copy(root: Path, to: Path, names: list[str], version: str) -> None:
    listed = record.find(root, version)
    for path in [root / name for name in names] + ([listed] if listed else []):
        if path.is_file():
            (to / path.relative_to(root)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, to / path.relative_to(root))


def _contents(root: Path) -> dict[Path, bytes]:
    found = (path for path in root.rglob("*") if path.is_file() and path.suffix != ".pyc")
    return {path.relative_to(root): path.read_bytes() for path in found}


def _by_git(copy: Path, folder: Path, version: str, names: list[str]) -> dict[str, bytes]:
    """The same files as whoever builds SGLang from source gets them."""
    shutil.copytree(copy / "sglang", folder / "python/sglang")
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    for path in series.paths(version):
        words = ["git", "apply", str(path.resolve())]
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            raise UnlikeError(
                f"git apply {path.parent.name} to SGLang {version}: {done.stderr.strip()}"
            )
    return {name: (folder / "python" / name).read_bytes() for name in names}


def _compare(version: str, ours: dict[str, bytes], theirs: dict[str, bytes]) -> None:
    for name, content in ours.items():
        if content != theirs[name]:
            raise UnlikeError(f"{name} of SGLang {version}: not what git makes of it")
        compile(content, name, "exec")


def unlike(version: str, before: str) -> dict[str, list[str]]:
    """By patch, the lines that it adds or takes in one version and not in the other. What stands
    around them is left out, and so is where they are."""
    found = {}
    here, there = series.read(version), series.read(before)
    for ours, theirs in zip(here, there, strict=True):
        one, other = changed(ours), changed(theirs)
        if one != other:
            only = [f"{version} {line}" for line in one if line not in other]
            found[ours.name] = only + [f"{before} {line}" for line in other if line not in one]
    return found


def changed(patch: series.Patch) -> list[str]:
    """The lines that a patch adds (+) and takes (-), file by file in their order."""
    lines = []
    for diff in patch.diffs.values():
        for change in diff.changes:
            if change.old is None or change.new is None:
                lines.append(f"{'+' if change.old is None else '-'}{change.line}")
    return lines
