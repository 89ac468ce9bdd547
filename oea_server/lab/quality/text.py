"""Sequences of equal length from held-out text, in an order that makes batches."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch

from oea_server.lab.quality.documents import documents

Order = Literal["mixed", "document"]
"""Batches of sequences from anywhere, or each from one document."""


class Sequences(NamedTuple):
    """Args:
    ids: [S, L + 1] int64.
    documents: where each is from, S names.
    sha256: of the text, so that a result says what it was measured on.
    """

    ids: torch.Tensor
    documents: list[str]
    sha256: str


def load(path: Path, tokenizer: Any, length: int, count: int, order: Order, seed: int) -> Sequences:
    """Cut documents into sequences of `length` tokens and one more to predict.

    Args:
        path: JSON lines with a name and a text each, or one plain text.
        count: sequences; the first so many of the order.

    Raises:
        ValueError: the text cannot be read, or has fewer.
    """
    found: dict[str, list[list[int]]] = {}
    for name, text in documents(path):
        ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        windows = [ids[at : at + length + 1] for at in range(0, len(ids) - length, length + 1)]
        if windows:
            found.setdefault(name, []).extend(windows)
    rows = [(name, window) for name, windows in found.items() for window in windows]
    dice = random.Random(seed)
    if order == "mixed":
        dice.shuffle(rows)
    if len(rows) < count:
        raise ValueError(
            f"{path.name} has {len(rows)} sequences of {length + 1} tokens, fewer than {count}"
        )
    rows = rows[:count]
    ids = torch.tensor([window for _, window in rows])
    return Sequences(ids, [name for name, _ in rows], hashlib.sha256(path.read_bytes()).hexdigest())
