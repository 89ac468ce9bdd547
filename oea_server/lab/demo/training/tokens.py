"""From documents to token ids: a byte-level BPE, and the two sides of the split as one long array
each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from oea_server.lab.demo.build import write_tokenizer
from oea_server.lab.demo.training import corpus

END = "<|endoftext|>"
SAMPLE = 8
"""One document in so many is enough to learn the merges from."""


class Data(NamedTuple):
    """Token ids, uint16, documents parted by `END`.

    Args:
        documents: of the held-out side: name, first token, tokens.
        manifest: what the corpus was: documents, characters and tokens of each side.
    """

    training: NDArray[np.uint16]
    held_out: NDArray[np.uint16]
    documents: list[tuple[str, int, int]]
    manifest: dict[str, Any]


def prepare(work: Path, model: Path) -> Data:
    """Gather, learn the tokenizer unless `model` has one, and encode, once: the result is kept in
    `work`."""
    kept = work / "tokens.npz"
    if not kept.exists():
        found = list(corpus.documents())
        for folder in (work, model):
            folder.mkdir(parents=True, exist_ok=True)
        texts = [each.text for each in found if not corpus.is_held_out(each.package)][::SAMPLE]
        merges = model / "tokenizer.json"
        tokenizer = (
            Tokenizer.from_file(str(merges)) if merges.exists() else write_tokenizer(model, texts)
        )
        scratch = work / "tokens.part.npz"
        np.savez(scratch, **_encode(tokenizer, found))
        scratch.rename(kept)
    with np.load(kept) as arrays:
        about = json.loads(str(arrays["about"]))
        return Data(arrays["training"], arrays["held_out"], about["documents"], about["manifest"])


def _encode(tokenizer: Tokenizer, found: list[corpus.Document]) -> dict[str, Any]:
    end = tokenizer.token_to_id(END)
    sides: dict[str, list[NDArray[np.uint16]]] = {"training": [], "held_out": []}
    documents, manifest, start = [], {}, 0
    for side, parts in sides.items():
        chosen = [
            each for each in found if corpus.is_held_out(each.package) == (side == "held_out")
        ]
        for each in chosen:
            ids = np.array([*tokenizer.encode(each.text).ids, end], dtype=np.uint16)
            parts.append(ids)
            if side == "held_out":
                documents.append((each.name, start, len(ids) - 1))
                start += len(ids)
        manifest[side] = {
            "documents": len(chosen),
            "characters": sum(len(each.text) for each in chosen),
            "tokens": sum(map(len, parts)),
        }
    about = json.dumps({"documents": documents, "manifest": manifest})
    return {**{side: np.concatenate(ids) for side, ids in sides.items()}, "about": about}
