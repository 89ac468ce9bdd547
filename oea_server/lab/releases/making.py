"""The series of a new release, made by git from the series of the release before."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from oea_server.lab.releases.sources import Release
from oea_server.patching import series

MADE = "made"
FORMAT = ("--zero-commit", "--no-signature", "--no-stat", "--filename-max-length=80", "-o")
AS_US = (
    *("-c", "user.name=oea-server maintainers", "-c", "user.email=maintainers@oea-server.invalid"),
    *("-c", "core.abbrev=7", "-c", "advice.mergeConflict=false"),
)


class ConflictError(Exception):
    """What a person has to put right, and where: several lines."""


def make(new: Release, old: Release, work: Path) -> list[str]:
    """Write the series of `new`. Returns the patches for which it needs a file of its own.

    Args:
        work: an empty folder for a git repository; or that of a call that ended in a conflict,
            which has been put right since.

    Raises:
        ConflictError: git cannot tell where a patch belongs.
    """
    if not (work / ".git").is_dir():
        _begin(new, old, work)
        _git(work, "cherry-pick", f"release-{old.version}..patched-{old.version}", may_fail=True)
    if (work / ".git/CHERRY_PICK_HEAD").exists():
        where = _git(work, "diff", "--name-only", "--diff-filter=U").stdout
        raise ConflictError(
            f"put right in {work} what conflicts, then `git add` and `git cherry-pick --continue` "
            f"there, and give the same command again:\n{where}"
        )
    return _write(new.version, old.version, work)


def _begin(new: Release, old: Release, work: Path) -> None:
    """A history: the release before, its series upon it, and the new release beside both."""
    work.mkdir(parents=True, exist_ok=True)
    _git(work, "init", "-q")
    for release in (old, new):
        _git(work, "checkout", "-q", "--orphan", f"release-{release.version}")
        shutil.rmtree(work / "python", ignore_errors=True)
        shutil.copytree(release.root / "sglang/srt", work / "python/sglang/srt")
        _git(work, "add", "--all", "--force")
        _git(work, "commit", "-q", "-m", f"SGLang {release.version}")
        if release is old:
            _git(work, "checkout", "-q", "-b", f"patched-{old.version}")
            _git(work, "am", "-q", *(str(path.resolve()) for path in series.paths(old.version)))
    _git(work, "checkout", "-q", "-b", MADE)


def _write(new: str, old: str, work: Path) -> list[str]:
    """The commits as files, those that are the old ones to the byte but named in the table."""
    _git(work, "format-patch", "-q", *FORMAT, "made-patches", f"release-{new}..{MADE}")
    made = sorted((work / "made-patches").glob("*.patch"))
    entries, own = [], []
    for path, before in zip(made, series.paths(old), strict=True):
        if path.read_bytes() == before.read_bytes():
            entries.append(f"{before.parent.name}/{before.stem}")
            continue
        own.append(before.parent.name)
        entries.append(f"{before.parent.name}/{new}")
        shutil.copyfile(path, before.with_name(f"{new}.patch"))
    lines = series.TABLE.read_text(encoding="utf-8").splitlines()
    lines = [line for line in lines if not line.startswith(f'"{new}"')]
    entry = f'"{new}" = [' + ", ".join(f'"{each}"' for each in entries) + "]"
    series.TABLE.write_text("\n".join([*lines, entry]) + "\n", encoding="utf-8")
    return own


def _git(folder: Path, *words: str, may_fail: bool = False) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        ["git", *AS_US, *words], cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode and not may_fail:
        raise RuntimeError(f"git {words[0]}: {done.stderr.strip()}")
    return done
