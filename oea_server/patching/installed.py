"""The installed SGLang: which state its files are in, and how they change together or not at
all."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from oea_server.patching import record, series
from oea_server.patching.series import Patch
from oea_server.patching.writing import alone, sweep, write


class PatchError(Exception):
    """Why SGLang cannot be patched: one line."""


class File(NamedTuple):
    """One file that the series touches. A text of None is no file."""

    name: str
    path: Path
    original: str | None
    patched: str | None
    is_patched: bool

    @property
    def is_added(self) -> bool:
        """Whether the file is one that no release has."""
        return self.original is None


class Installed(NamedTuple):
    """SGLang as it is installed, every file known to be either as released or as patched."""

    version: str
    patches: list[Patch]
    files: list[File]
    root: Path

    @property
    def state(self) -> str:
        """`original`, `patched`, or `half` when some files are and some are not."""
        if not any(file.is_patched for file in self.files if not file.is_added):
            return "original"  # whatever was left behind: nothing imports it
        return "patched" if all(file.is_patched for file in self.files) else "half"

    @property
    def leftover(self) -> list[File]:
        """What we added to an SGLang that has been replaced since by one as released."""
        return [file for file in self.files if file.is_patched] if self.state == "original" else []

    def apply(self) -> list[Path]:
        """Patch the files that are not yet. Returns those.

        Raises:
            PatchError: a file cannot be written; nothing was changed.
        """
        self._write(self.files, patched=True)
        return [file.path for file in self.files if not file.is_patched]

    def revert(self) -> list[Path]:
        """Bring the patched files back to what was released. Returns those.

        Raises:
            PatchError: a file cannot be written; nothing was changed.
        """
        # a module that others import goes after they do without it
        self._write(reversed(self.files), patched=False)
        return [file.path for file in self.files if file.is_patched]

    def _write(self, files: Iterable[File], patched: bool) -> None:
        wanted = {file: _bytes(file.patched if patched else file.original) for file in files}
        contents = {
            file.path: content for file, content in wanted.items() if file.is_patched != patched
        }
        listed = record.find(self.root, self.version)
        try:
            with alone(self.root / "sglang"):
                sweep([file.path for file in self.files] + ([listed] if listed else []))
                if listed is not None:
                    before = listed.read_bytes()
                    after = record.edited(
                        before, {file.name: content for file, content in wanted.items()}
                    )
                    # first what is to be deleted some day is listed, then it is there
                    entry = {listed: after} if after != before else {}
                    contents = {**entry, **contents} if patched else {**contents, **entry}
                write(contents)
        except OSError as error:
            raise PatchError(
                f"cannot write {error.filename}: {error.strerror}; nothing was changed"
            ) from error


def find() -> Installed:
    """Look at the SGLang that this Python would import; it is not imported.

    Raises:
        PatchError: there is none, no series for its version, or a file is neither as released nor
        as patched.
    """
    try:
        # a local part names a build, not another source
        release = version("sglang").partition("+")[0]
    except PackageNotFoundError:
        raise PatchError(
            "SGLang is not installed in this environment; run it by the Python of SGLang's"
        ) from None
    spec = find_spec("sglang")
    if spec is None or not spec.submodule_search_locations:
        raise PatchError("SGLang is installed, but cannot be found; is its environment broken?")
    return look(release, Path(next(iter(spec.submodule_search_locations))).parent)


def look(release: str, root: Path) -> Installed:
    """The SGLang of a version that lies in `root`/sglang."""
    patches = series.read(release)
    if not patches:
        there = [root / name for name in series.added_by_any() if (root / name).is_file()]
        raise PatchError(
            f"no patches for SGLang {release}; there are some for {', '.join(series.versions())}"
            + "".join(f"; {path} was left behind by another SGLang: delete it" for path in there)
        )
    added = series.added(patches)
    files, foreign = [], []
    for name in series.files(patches):
        file = _look_at(patches, name, root / name)
        if file is None:
            foreign.append(name)
        else:
            files.append(file)
    problems = []
    if changed := [name for name in foreign if name not in added]:
        problems.append(
            f"{', '.join(changed)}: neither as released in SGLang {release} nor as we patch it;"
            " install SGLang anew"
        )
    problems += [  # which a new installation of SGLang would leave as it is
        f"{root / name}: not as we add it, and no release of SGLang has it; delete it, then patch"
        " apply or revert"
        for name in foreign
        if name in added
    ]
    if problems:
        raise PatchError("; ".join(problems))
    return Installed(release, patches, files, root)


def _look_at(patches: list[Patch], name: str, path: Path) -> File | None:
    """None if the file is neither: git's names of both are in the patches."""
    try:
        content = path.read_bytes() if path.is_file() else None
    except OSError as error:
        raise PatchError(f"cannot read {path}: {error.strerror}") from error
    before, after = series.ends(patches, name)
    if series.is_blob(content, before):
        text = _text(content)
        return File(name, path, text, series.patched(patches, name, text), False)
    if series.is_blob(content, after):
        text = _text(content)
        return File(name, path, series.original(patches, name, text), text, True)
    return None


def _text(content: bytes | None) -> str | None:
    return None if content is None else content.decode()


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else text.encode()
