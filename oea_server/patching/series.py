"""The series of patches for one SGLang version, and what it makes of a file's text.

The patches live in `patches/sglang-VERSION/`, as `git format-patch` writes them for SGLang's
repository: `git am` takes them there. Here they are applied to texts in memory, exactly: a context
line that differs, or lies elsewhere, is a refusal."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

import whatthepatch
from whatthepatch.exceptions import HunkApplyException
from whatthepatch.patch import diffobj as Diff

FOLDER = Path(__file__).parents[1] / "patches"
ROOT = "python/"
"""Folder of the package in SGLang's repository."""


class Patch(NamedTuple):
    """One commit of a series."""

    name: str
    diffs: dict[str, Diff]
    """By file, `sglang/...`."""


def versions() -> list[str]:
    """The SGLang versions that there are patches for, oldest first."""
    found = [folder.name.removeprefix("sglang-") for folder in FOLDER.glob("sglang-*")]
    return sorted(found, key=lambda version: [int(part) for part in version.split(".")])


def read(version: str) -> list[Patch]:
    """The series for a version, in order. Empty if there is none."""
    return [
        Patch(path.stem, diffs_of(path.read_text()))
        for path in sorted((FOLDER / f"sglang-{version}").glob("*.patch"))
    ]


def diffs_of(text: str) -> dict[str, Diff]:
    """A patch's diffs by file."""
    return {
        diff.header.new_path.removeprefix(ROOT): diff for diff in whatthepatch.parse_patch(text)
    }


def files(series: list[Patch]) -> list[str]:
    """The files that a series touches; one that others import stands before them."""
    return list(dict.fromkeys(file for patch in series for file in patch.diffs))


def added(series: list[Patch]) -> set[str]:
    """The files of a series that no release has."""
    return {name for name in files(series) if set(ends(series, name)[0]) == {"0"}}


def added_by_any() -> list[str]:
    """What any version's series adds."""
    return sorted(set().union(*(added(read(version)) for version in versions())))


def ends(series: list[Patch], file: str) -> tuple[str, str]:
    """How git names a file's content before the series and after it, abbreviated; zeros where there
    is no file."""
    headers = [patch.diffs[file].header for patch in series if file in patch.diffs]
    return headers[0].old_version, headers[-1].new_version


def is_blob(content: bytes | None, name: str) -> bool:
    """Whether git names a file's content so."""
    if content is None:
        return set(name) == {"0"}
    return (
        hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False)
        .hexdigest()
        .startswith(name)
    )


def patched(series: list[Patch], file: str, text: str | None) -> str | None:
    """A file's text with the series in it. `None` is a file that is not there.

    Raises:
        HunkApplyException: the text is not what the patches were written for.
    """
    for patch in series:
        if file in patch.diffs:
            text = _apply(patch.diffs[file], text, reverse=False)
    return text


def original(series: list[Patch], file: str, text: str | None) -> str | None:
    """A file's text without the series, the reverse of `patched`, with the same error."""
    for patch in reversed(series):
        if file in patch.diffs:
            text = _apply(patch.diffs[file], text, reverse=True)
    return text


def _apply(diff: Diff, text: str | None, reverse: bool) -> str | None:
    makes_file = diff.header.old_path == "/dev/null"
    if (text is None) != (makes_file and not reverse):
        raise HunkApplyException("the file is there" if makes_file else "the file is not there")
    lines = whatthepatch.apply_diff(diff, text or "", reverse=reverse)
    return None if makes_file and reverse and not lines else "\n".join(lines) + "\n"
