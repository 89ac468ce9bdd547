"""Held-out text to ship: long documents of many kinds, so that batches can be mixed or of one
document."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from tokenizers import Tokenizer

from oea_server.lab.demo.training.tokens import Data

DOCUMENTS = 24
TOKENS = 16 * 257
"""Of each: sixteen sequences of 256 tokens and one to predict."""


class Kind(NamedTuple):
    """Where a document is from: man, doc, perl, python; and its package."""

    source: str
    package: str

    @classmethod
    def of(cls, name: str) -> Kind:
        source, _, rest = name.partition("/")
        return cls(source, rest.partition("/")[0].split(".")[0])


def write(data: Data, tokenizer: Tokenizer, path: Path) -> None:
    """Choose, by turns from each source, one document of a package; JSON lines of name and text."""
    by_source: dict[str, list[tuple[str, int]]] = {}
    packages = set()
    for name, start, length in data.documents:
        kind = Kind.of(name)
        if length >= TOKENS and kind not in packages:
            packages.add(kind)
            by_source.setdefault(kind.source, []).append((name, start))
    chosen: list[tuple[str, int]] = []
    while len(chosen) < DOCUMENTS and any(by_source.values()):
        chosen += [rest.pop(0) for _, rest in sorted(by_source.items()) if rest]
    lines = [
        json.dumps(
            {
                "name": name,
                "text": tokenizer.decode(data.held_out[start : start + TOKENS + 32].tolist()),
            }
        )
        for name, start in chosen[:DOCUMENTS]
    ]
    path.write_text("".join(line + "\n" for line in lines))
