"""The server's keys where they are not on its command line, which the process list shows: a
variable, or a file.

`oea-server config` finds the key of the server beside it in the same places.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

ADMIN = "OEA_ADMIN_KEY"
"""To change what serves (SGLang's `--admin-api-key`)."""
API = "OEA_API_KEY"
"""To be served (SGLang's `--api-key`); without an admin key, to change what serves too."""
CLIENT = "OEA_KEY"
"""What `oea-server config` sends; a server beside it that is told no admin key asks for this
one."""
FILE = "_FILE"
"""After one of the first two names: the variable that names a file with the key in it."""
VARIABLES = (ADMIN, ADMIN + FILE, API, API + FILE, CLIENT)


class Keys(NamedTuple):
    """A server's keys; None for one that it has not."""

    api: str | None = None
    admin: str | None = None

    @property
    def control(self) -> str | None:
        """The key that changes what serves, None if none is needed."""
        return self.admin or self.api

    @property
    def given(self) -> list[str]:
        """The keys that are set."""
        return [key for key in self if key]


def admin(environ: Mapping[str, str]) -> str | None:
    """The admin key that an environment names, None if it names none.

    Raises:
        ValueError: one line: the variable, and what is wrong with what it names.
    """
    return _named(environ, ADMIN) or _named(environ, CLIENT)


def api(environ: Mapping[str, str]) -> str | None:
    """The API key that an environment names, None if it names none.

    Raises:
        ValueError: one line: the variable, and what is wrong with what it names.
    """
    return _named(environ, API)


def usable(source: str, key: str) -> str:
    """The key, if it can be one.

    Raises:
        ValueError: one line: the source, and what is wrong with what it names.
    """
    if wrong := problem(key):
        raise ValueError(f"{source}: {wrong}")
    return key


def problem(key: str) -> str | None:
    """What is wrong with a key, None if nothing is: clients send it in a header, and must be able
    to."""
    if not key:
        return "an empty key locks nothing; give one, or leave it out"
    if not key.isascii() or not key.isprintable() or key != key.strip():
        return (
            "a key is printable ASCII without blanks around it: no client could send this one in a"
            " header; make one by openssl rand -hex 32"
        )
    return None


def read(name: str, path: str) -> str:
    """The key in a file that an option or a variable names, without the newline at its end.

    Raises:
        ValueError: one line: the name, the file, and what is wrong with it.
    """
    source = f"{name}={path}"
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(f"{source}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{source}: not a text file; write the key alone into it") from None
    return usable(source, text.removesuffix("\n").removesuffix("\r"))


def _named(environ: Mapping[str, str], variable: str) -> str | None:
    key, path = environ.get(variable), environ.get(variable + FILE)
    if key is not None and path is not None:
        raise ValueError(f"{variable} and {variable}{FILE}: a key has one place; unset one of them")
    if path is not None:
        return read(variable + FILE, path)
    return None if key is None else usable(variable, key)
