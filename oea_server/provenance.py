"""What was built: the version, the git commit, the SGLang below."""

from __future__ import annotations

import hashlib
import subprocess
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of
from pathlib import Path

PACKAGE = Path(__file__).parent


def version(package: str) -> str:
    """An installed package's version, or `absent`."""
    try:
        return version_of(package)
    except PackageNotFoundError:
        return "absent"


def commit() -> str:
    """The commit that this package was made from, `-dirty` if more than that; `unknown` if it was
    not written down.

    An image's build writes the file COMMIT (see the Dockerfile); a checkout asks git.
    """
    written = PACKAGE / "COMMIT"
    if written.is_file():
        return written.read_text().strip() or "unknown"
    if not (PACKAGE.parent / ".git").exists():
        return "unknown"
    git = (
        "git",
        "-C",
        str(PACKAGE.parent),
        "describe",
        "--always",
        "--dirty",
        "--abbrev=12",
        "--exclude=*",
    )
    try:
        done = subprocess.run(git, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip()


def code() -> str:
    """A digest of the code that serves, which tells two builds of one version apart; the laboratory
    is none of it."""
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        if PACKAGE / "lab" in path.parents:
            continue
        digest.update(f"{path.relative_to(PACKAGE)}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
