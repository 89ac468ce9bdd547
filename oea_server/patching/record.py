"""SGLang's RECORD, by which pip and uv uninstall it, kept true to what is patched.

A file that it does not name stays behind when SGLang is uninstalled or replaced.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from pathlib import Path


def find(root: Path, release: str) -> Path | None:
    """The RECORD of the SGLang that lies in `root`. None if it was not installed there: a checkout,
    a copy."""
    return next(iter(sorted(root.glob(f"sglang-{release}*.dist-info/RECORD"))), None)


def edited(record: bytes, contents: Mapping[str, bytes | None]) -> bytes:
    """A RECORD in which these files have these contents; None is no file. Everything else stays to
    the byte."""
    lines = record.split(b"\n")
    if not any(line.startswith(b"sglang/") for line in lines):
        return record  # an editable install names a link in place of files
    for name, content in contents.items():
        own = name.encode() + b","
        at = next((i for i, line in enumerate(lines) if line.startswith(own)), None)
        if content is None:
            lines = [line for line in lines if not line.startswith(own)]
        elif at is None:
            ending = b"\r" if lines[0].endswith(b"\r") else b""
            # they are in order, mostly
            later = next((i for i, line in enumerate(lines) if line > own), 0)
            lines.insert(later, own + _digest(content) + ending)
        elif not lines[at].startswith(own + b","):  # a line without a hash keeps none
            ending = b"\r" if lines[at].endswith(b"\r") else b""
            lines[at] = own + _digest(content) + ending
    return b"\n".join(lines)


def _digest(content: bytes) -> bytes:
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=")
    return b"sha256=%s,%d" % (digest, len(content))
