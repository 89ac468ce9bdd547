"""Shapes of a tiny model's weights, by the names that its family's checkpoints have."""

from __future__ import annotations

from collections.abc import Sequence

from tests.engine.tiny_checkpoints import EXPERTS

Shapes = dict[str, tuple[int, ...]]

VOCABULARY, HIDDEN, HEAD = 2048, 64, 16
"""The demo's tokenizer's; what `tiny_checkpoints.SIZES` says."""
PROJECTIONS, W123 = ("gate_proj", "up_proj", "down_proj"), ("w1", "w2", "w3")
NORMS: Shapes = {"input_layernorm.weight": (HIDDEN,), "post_attention_layernorm.weight": (HIDDEN,)}
QK_NORMS: Shapes = {"self_attn.q_norm.weight": (HEAD,), "self_attn.k_norm.weight": (HEAD,)}


def attention(heads: int = 4, groups: int = 2) -> Shapes:
    found: Shapes = {f"self_attn.{name}_proj.weight": (groups * HEAD, HIDDEN) for name in "kv"}
    found["self_attn.q_proj.weight"] = (heads * HEAD, HIDDEN)
    found["self_attn.o_proj.weight"] = (HIDDEN, heads * HEAD)
    return found


def swiglu(where: str, names: Sequence[str] = PROJECTIONS) -> Shapes:
    return {f"{where}.{name}.weight": (64, 64) for name in names}


def experts(where: str, names: Sequence[str] = PROJECTIONS) -> Shapes:
    """One after the other."""
    return {
        name: shape
        for i in range(EXPERTS)
        for name, shape in swiglu(f"{where}.experts.{i}", names).items()
    }


def gate(where: str, bias: str = "") -> Shapes:
    found: Shapes = {f"{where}.gate.weight": (EXPERTS, HIDDEN)}
    return {**found, f"{where}.{bias}": (EXPERTS,)} if bias else found


def stacked(where: str) -> Shapes:
    """All experts in one tensor, as Step writes them."""
    return {f"{where}.{name}_proj.weight": (EXPERTS, 64, 64) for name in ("gate", "up", "down")}


def model(attentions: Sequence[Shapes], sparse: Shapes, embedding: str = "embed_tokens") -> Shapes:
    """A layer for each attention, the first without experts."""
    ends: Shapes = {
        f"model.{embedding}.weight": (VOCABULARY, HIDDEN),
        "lm_head.weight": (VOCABULARY, HIDDEN),
    }
    found: Shapes = {**ends, "model.norm.weight": (HIDDEN,)}
    for layer, own in enumerate(attentions):
        names = {**NORMS, **own, **(sparse if layer else swiglu("mlp"))}
        found |= {f"model.layers.{layer}.{name}": shape for name, shape in names.items()}
    return found
