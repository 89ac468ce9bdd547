"""The sizing table: its formula gives the published sizes, and the README shows what it gives."""

from __future__ import annotations

import re

import pytest

from deploy.k8s import rules
from deploy.k8s.sizing import (
    BF16,
    FP8,
    LAYOUTS,
    QWEN3_30B,
    QWEN3_235B,
    README,
    Layout,
    Shape,
    readme,
    table,
)


@pytest.mark.parametrize(
    ("shape", "parameters"), [(QWEN3_235B, 235_093_634_560), (QWEN3_30B, 30_532_122_624)]
)
def test_the_formula_counts_every_parameter(shape: Shape, parameters: int) -> None:
    assert Layout("", shape, BF16, 1, 1).weights() == BF16 * parameters


def test_the_formula_agrees_with_transformers() -> None:
    """Counted on the real architecture, without allocating it."""
    import torch
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    s = QWEN3_30B
    config = Qwen3MoeConfig(
        vocab_size=s.vocab,
        hidden_size=s.hidden,
        num_hidden_layers=s.layers,
        num_attention_heads=s.heads,
        num_key_value_heads=s.kv_heads,
        head_dim=s.head_dim,
        num_experts=s.experts,
        moe_intermediate_size=s.moe_intermediate,
        tie_word_embeddings=False,
    )
    with torch.device("meta"):
        model = Qwen3MoeForCausalLM(config)
    assert (
        sum(each.numel() for each in model.parameters()) * BF16
        == Layout("", s, BF16, 1, 1).weights()
    )


def test_ranks_hold_the_model_between_them() -> None:
    """Together a little more than one copy: routers and norms are everywhere, KV heads on two ranks
    each at TP8."""
    one = Layout("", QWEN3_235B, BF16, 1, 1).weights()
    for tp, ep in ((8, 1), (8, 8), (16, 16), (4, 1)):
        together = tp * Layout("", QWEN3_235B, BF16, tp, ep).weights()
        assert one < together < 1.02 * one
    assert (
        Layout("", QWEN3_235B, BF16, 8, 8).weights() == Layout("", QWEN3_235B, BF16, 8, 1).weights()
    )


def test_fp8_halves_the_linear_weights() -> None:
    ratio = (
        Layout("", QWEN3_235B, FP8, 8, 8).weights() / Layout("", QWEN3_235B, BF16, 8, 8).weights()
    )
    assert 0.5 < ratio < 0.51


def test_kv_heads_are_repeated_beyond_four_ranks() -> None:
    assert [Layout("", QWEN3_235B, BF16, tp, 1).kv_bytes() for tp in (1, 4, 8, 16)] == [
        192512,
        48128,
        48128,
        48128,
    ]


def test_the_readme_has_the_table() -> None:
    assert table() in README.read_text(), "run: python -m deploy.k8s"
    assert README.read_text() == readme()
    assert len(re.findall(r"^\| Qwen3", table(), re.MULTILINE)) == len(LAYOUTS)


def test_the_rules_are_what_their_files_say() -> None:
    assert rules.FILE.read_text() == rules.text(), "run: python -m deploy.k8s"
