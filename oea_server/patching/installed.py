"""The installed SGLang: which state its files are in, and how they change together or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from whatthepatch.exceptions import HunkApplyException

from oea_server.patching import series
from oea_server.patching.series import Patch


class PatchError(Exception):
    """Why SGLang cannot be patched: one line."""


class File(NamedTuple):
    """One file that the series touches. A text of None is no file."""

    path: Path
    original: str | None
    patched: str | None
    is_patched: bool


class Installed(NamedTuple):
    """SGLang as it is installed, every file known to be either as released or as patched."""

    version: str
    patches: list[Patch]
    files: list[File]

    @property
    def state(self) -> str:
        """`original`, `patched`, or `half` when some files are and some are not."""
        states = {file.is_patched for file in self.files}
        return "half" if len(states) > 1 else "patched" if states.pop() else "original"

    def apply(self) -> list[Path]:
        """Patch the files that are not yet. Returns those."""
        return write({file.path: file.patched for file in self.files if not file.is_patched})

    def revert(self) -> list[Path]:
        """Bring the patched files back to what was released. Returns those."""
        # a module that others import goes after they do without it
        return write({file.path: file.original for file in reversed(self.files) if file.is_patched})


def find() -> Installed:
    """Look at the SGLang that this Python would import; it is not imported.

    Raises:
        PatchError: there is none, no series for its version, or a file is neither as released nor as patched.
    """
    try:
        release = version("sglang").partition("+")[0]  # a local part names a build, not another source
    except PackageNotFoundError:
        raise PatchError("SGLang is not installed in this environment") from None
    spec = find_spec("sglang")
    if spec is None or not spec.submodule_search_locations:
        raise PatchError("SGLang is installed, but cannot be found; is its environment broken?")
    return look(release, Path(next(iter(spec.submodule_search_locations))).parent)


def look(release: str, root: Path) -> Installed:
    """The same for the SGLang of a version that lies in `root`/sglang."""
    patches = series.read(release)
    if not patches:
        raise PatchError(f"no patches for SGLang {release}; there are some for {', '.join(series.versions())}")
    names = series.files(patches)
    files, foreign = [], []
    for name in names:
        file = _look_at(patches, name, root / name)
        if file is None:
            foreign.append(name)
        else:
            files.append(file)
    if foreign:
        raise PatchError(
            f"{', '.join(foreign)}: neither as released in SGLang {release} nor as we patch it; install SGLang anew"
        )
    return Installed(release, patches, files)


def _look_at(patches: list[Patch], name: str, path: Path) -> File | None:
    text = path.read_text(encoding="utf-8") if path.is_file() else None
    try:
        return File(path, text, series.patched(patches, name, text), False)
    except HunkApplyException:
        pass
    try:
        return File(path, series.original(patches, name, text), text, True)
    except HunkApplyException:
        return None


def write(texts: Mapping[Path, str | None]) -> list[Path]:
    """Give files new texts, in this order: all of them, or none if one cannot be written.

    Raises:
        PatchError: a folder or a file cannot be written; everything is as it was.
    """
    before = {path: path.read_bytes() if path.exists() else None for path in texts}
    ready: dict[Path, str | None] = {}
    try:
        for path, text in texts.items():
            ready[path] = None if text is None else _beside(path, text.encode())
        done: list[Path] = []
        try:
            for path, new in ready.items():
                _put(path, new)
                done.append(path)
        except OSError:
            for path in reversed(done):
                old = before[path]
                _put(path, None if old is None else _beside(path, old))
            raise
    except OSError as error:
        raise PatchError(f"cannot write {error.filename}: {error.strerror}; nothing was changed") from error
    finally:
        for new in ready.values():
            if new is not None:
                Path(new).unlink(missing_ok=True)
    return list(texts)


def _beside(path: Path, content: bytes) -> str:
    """A file next to `path` with its rights, to be renamed to it."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        os.fsync(handle)
    os.chmod(name, path.stat().st_mode & 0o777 if path.exists() else 0o644)
    return name


def _put(path: Path, new: str | None) -> None:
    if new is None:
        path.unlink()
    else:
        os.replace(new, path)
