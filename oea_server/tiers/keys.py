"""The file that binds keys to tiers: a tier and the SHA-256 of a key, in hex, on each line.

    # printf %s "$KEY" | sha256sum
    gold: 2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b
    *: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08

`*` is a gateway's key: what bears it may name any tier, by the header that the operator has named.
No key is in the file, in memory or in an answer: whoever reads the file cannot ask for anything.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

from oea_server.oneline import oneline
from oea_server.tiers.table import NAME

ANY = "*"
MOST = 10_000
HASH = re.compile(r"[0-9a-f]{64}")
LARGEST = 1 << 20
"""Bytes of a file."""
NOTHING = hashlib.sha256(b"").hexdigest()


def hashed(key: str) -> str:
    """A key as the file has it."""
    return hashlib.sha256(key.encode("latin-1")).hexdigest()


def read(path: str) -> Mapping[str, str]:
    """The tier of each key, by the key's hash.

    Raises:
        ValueError: one line: the file, its line, and what is wrong there.
    """
    try:
        with Path(path).open("rb") as file:
            content = file.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise ValueError(f"tier_keys={path}: above {LARGEST} bytes; is it another file?")
        lines = content.decode("utf-8").splitlines()
    except OSError as error:
        raise ValueError(f"tier_keys={path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(
            f"tier_keys={path}: not a text file; write a line for each key, gold: SHA-256"
        ) from None
    found: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        tier, _, digest = (each.strip() for each in line.partition(":"))
        where = f"tier_keys={path}: line {number}"
        if tier != ANY and NAME.fullmatch(tier) is None:
            raise ValueError(f"{where}: {oneline(tier, 30)!a} is neither a tier nor {ANY}")
        if HASH.fullmatch(digest) is None:
            # what is there may be a key: it is not shown
            raise ValueError(
                f"{where}: after {tier}: comes no SHA-256 in 64 small hex digits (printf %s KEY |"
                " sha256sum)"
            )
        if digest == NOTHING:
            raise ValueError(
                f"{where}: the hash of an empty key, which no client can send; hash the key itself"
            )
        if found.setdefault(digest, tier) != tier:
            raise ValueError(
                f"{where}: this key is bound to {found[digest]} already; leave one line out"
            )
    if not found:
        raise ValueError(f"tier_keys={path}: it binds no key; write a line, gold: SHA-256")
    if len(found) > MOST:
        raise ValueError(f"tier_keys={path}: {len(found)} keys are above {MOST}; leave some out")
    return found
