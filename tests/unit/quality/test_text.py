"""Sequences from documents, and intervals over them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from oea_server.lab.quality import text
from oea_server.lab.records import stats


class Words:
    """A tokenizer: a word is a token."""

    def __call__(self, words: str, add_special_tokens: bool, verbose: bool) -> dict[str, Any]:
        return {"input_ids": [sum(word.encode()) % 50 for word in words.split()]}


def test_batches_are_mixed_or_of_one_document(documents: Path) -> None:
    mixed = text.load(documents, Words(), 9, 36, "mixed", 0)
    same = text.load(documents, Words(), 9, 36, "document", 0)
    assert mixed.ids.shape == same.ids.shape == (36, 10)
    assert same.documents == sorted(same.documents)
    assert mixed.documents != same.documents
    assert sorted(mixed.documents) == same.documents
    assert text.load(documents, Words(), 9, 36, "mixed", 0).ids.equal(mixed.ids)
    assert not text.load(documents, Words(), 9, 36, "mixed", 1).ids.equal(mixed.ids)


def test_plain_text_is_one_document(tmp_path: Path) -> None:
    path = tmp_path / "book.txt"
    path.write_text("word " * 100)
    assert text.load(path, Words(), 9, 10, "mixed", 0).documents == ["book.txt"] * 10


def test_too_little_text_is_said(documents: Path) -> None:
    with pytest.raises(
        ValueError, match=r"text.jsonl has 36 sequences of 10 tokens, fewer than 37"
    ):
        text.load(documents, Words(), 9, 37, "mixed", 0)


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    dice = np.random.default_rng(0)
    hits = 0
    for seed in range(200):
        found = stats.mean(dice.normal(1.0, 1.0, 60).tolist(), seed)
        hits += found.low <= 1.0 <= found.high
    assert 175 <= hits <= 199


def test_pairs_cancel_what_they_share() -> None:
    base = np.random.default_rng(0).normal(5.0, 2.0, 50)
    found = stats.paired((base + 0.01).tolist(), base.tolist())
    assert found == pytest.approx((0.01, 0.01, 0.01))
