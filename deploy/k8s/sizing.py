"""GPU memory of Qwen3-MoE models by rank: weights, and what a token's KV cache takes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- sizing: written by python -m deploy.k8s -->\n", "<!-- /sizing -->\n"
GIB = 2**30
CARDS = {"80 GB": 81559, "141 GB": 143771}
"""MiB, as NVIDIA's tools and GPU feature discovery say it: H100 and H200."""
STATIC = 0.85
"""Share of a card for weights and KV cache, assumed: SGLang chooses --mem-fraction-static itself,
near this."""
BF16 = 2.0
FP8 = 1 + 4 / 128**2
"""A byte, and a float32 scale for each block of 128 x 128."""


class Shape(NamedTuple):
    """A model's config.json, in short."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    experts: int
    moe_intermediate: int
    vocab: int


QWEN3_235B = Shape(94, 4096, 64, 4, 128, 128, 1536, 151936)
QWEN3_30B = Shape(48, 2048, 32, 4, 128, 128, 768, 151936)


class Layout(NamedTuple):
    """How a model is spread over ranks."""

    name: str
    shape: Shape
    linear: float
    """Bytes of a weight of attention and experts; embeddings, router and norms are bf16 in
    either."""
    tp: int
    ep: int

    def kv_heads(self) -> int:
        """On each rank; fewer heads than ranks are repeated."""
        return max(1, self.shape.kv_heads // self.tp)

    def weights(self) -> float:
        """Bytes on one rank."""
        s = self.shape
        attention = s.hidden * s.head_dim * (2 * s.heads // self.tp + 2 * self.kv_heads())
        expert = 3 * s.hidden * s.moe_intermediate // (self.tp // self.ep)
        layer = self.linear * (attention + s.experts // self.ep * expert)
        layer += BF16 * (s.hidden * s.experts + 2 * s.hidden + 2 * s.head_dim)
        return s.layers * layer + BF16 * (2 * s.vocab * s.hidden / self.tp + s.hidden)

    def kv_bytes(self) -> int:
        """Of one token on one rank: K and V of each layer, bf16."""
        return 2 * self.shape.layers * self.kv_heads() * self.shape.head_dim * 2

    def kv_tokens(self, card_mib: int) -> int:
        """Room for so many tokens on a card; less than 1 if the weights alone fill it."""
        return int((STATIC * card_mib * 2**20 - self.weights()) / self.kv_bytes())

    def fp8_fits(self) -> bool:
        """Whether every rank's part of an expert is whole blocks of 128."""
        return self.shape.moe_intermediate // (self.tp // self.ep) % 128 == 0


LAYOUTS = (
    Layout("Qwen3-235B-A22B, bf16", QWEN3_235B, BF16, 8, 8),
    Layout("Qwen3-235B-A22B, bf16, 2 nodes", QWEN3_235B, BF16, 16, 16),
    Layout("Qwen3-235B-A22B-FP8", QWEN3_235B, FP8, 8, 8),
    Layout("Qwen3-235B-A22B-FP8, 4 GPUs", QWEN3_235B, FP8, 4, 1),
    Layout("Qwen3-30B-A3B, bf16", QWEN3_30B, BF16, 1, 1),
    Layout("Qwen3-30B-A3B-FP8", QWEN3_30B, FP8, 1, 1),
)


def table() -> str:
    """Markdown, a row for each layout."""
    rooms = "".join(f" KV room on {card} |" for card in CARDS)
    lines = [
        f"| model | flags | weights a rank | KV a token and rank |{rooms}",
        "|---|---|--:|--:|" + "--:|" * len(CARDS),
    ]
    for layout in LAYOUTS:
        flags = f"`--tp-size={layout.tp}`" + (f" `--ep-size={layout.ep}`" if layout.ep > 1 else "")
        cells = [
            layout.name,
            flags,
            f"{layout.weights() / GIB:.1f} GiB",
            f"{layout.kv_bytes() / 1024:.0f} KiB",
        ]
        cells += [_room(layout.kv_tokens(mib)) for mib in CARDS.values()]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def readme() -> str:
    """deploy/README.md with the table in its place."""
    return re.sub(
        f"(?<={re.escape(BEGIN)}).*(?={re.escape(END)})",
        table(),
        README.read_text(),
        flags=re.DOTALL,
    )


def _room(tokens: int) -> str:
    return f"{tokens // 1000}k tokens" if tokens >= 1000 else "none"
