"""The key to ask a server with: as it is given, or where the server itself finds it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from oea_server.access import keys

VARIABLE = "OEA_KEY"


def find(given: str | None, file: Path | None, environ: Mapping[str, str]) -> str | None:
    """`--key` or `--key-file`, else OEA_KEY, else the server's own variables: its admin key, then its API key.

    Raises:
        ValueError: one line: where it looked, and what is wrong there.
    """
    if given is not None and file is not None:
        raise ValueError("--key and --key-file: a key has one place; give one of them")
    if given is not None:
        return _usable("--key", given)
    if file is not None:
        try:
            return _usable(f"--key-file={file}", keys.read(str(file)))
        except OSError as error:
            raise ValueError(f"--key-file={file}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise ValueError(f"--key-file={file}: not a text file") from None
    if key := environ.get(VARIABLE):
        return _usable(VARIABLE, key)
    return keys.admin(environ) or keys.api(environ)


def _usable(source: str, key: str) -> str:
    if wrong := keys.problem(key):
        raise ValueError(f"{source}: {wrong}")
    return key
