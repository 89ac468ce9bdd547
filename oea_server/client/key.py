"""The key to ask a server with: as it was given, or from where the server itself reads its key."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from oea_server.access import keys


def find(given: str | None, file: Path | None, environ: Mapping[str, str]) -> str | None:
    """`--key` or `--key-file`, else OEA_KEY, else the server's own variables: its admin key, then
    its API key.

    Raises:
        ValueError: one line: where it looked, and what is wrong there.
    """
    if given is not None and file is not None:
        raise ValueError("--key and --key-file: a key has one place; give one of them")
    if given is not None:
        return keys.usable("--key", given)
    if file is not None:
        return keys.read("--key-file", str(file))
    if key := environ.get(keys.CLIENT):
        return keys.usable(keys.CLIENT, key)
    return keys.admin(environ) or keys.api(environ)
