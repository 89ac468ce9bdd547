"""A model small enough to be evaluated in a second, with routers that mean something, and a
text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from oea_server.lab.quality.text import Sequences
from tests.unit.test_training import TINY

BATCH, SEQUENCES, LENGTH = 4, 8, 12


@pytest.fixture(scope="session")
def model() -> Any:
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    torch.manual_seed(0)
    return (
        Qwen3MoeForCausalLM(Qwen3MoeConfig(**{k: v for k, v in TINY.items() if k != "torch_dtype"}))
        .float()
        .eval()
    )


@pytest.fixture
def text() -> Sequences:
    ids = torch.randint(
        0, TINY["vocab_size"], (SEQUENCES, LENGTH + 1), generator=torch.Generator().manual_seed(1)
    )
    return Sequences(ids, ["a"] * SEQUENCES, "0" * 64)


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    path = tmp_path / "text.jsonl"
    lines = [{"name": name, "text": " ".join(f"{name}{i}" for i in range(60))} for name in "abcdef"]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path
