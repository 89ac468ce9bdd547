"""Which layers are measured: the shapes of published models, or of one rank's share of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from oea_server.lab.bench.paper import QWEN3_30B, QWEN3_235B, Published
from oea_server.lab.demo.build import CONFIG

BYTES_PER_WEIGHT = 2
"""bfloat16."""


@dataclass(frozen=True, slots=True)
class Preset:
    """One Mixture-of-Experts layer, as one device holds it. Weights are bfloat16."""

    name: str
    num_experts: int
    """Experts that the router chooses among."""
    k: int
    hidden: int
    intermediate: int
    """Width of an expert on this device (tensor parallelism narrows it)."""
    ranks: int
    """Expert-parallel ranks; the device is rank 0 and holds the first num_experts / ranks
    experts."""
    published: Published
    """Whose T the correlated logits reproduce."""
    comparable: bool
    """Whether the paper measured this layer, so that its latencies may stand beside ours."""
    note: str

    @property
    def local_experts(self) -> int:
        """Experts whose weights this device holds."""
        return self.num_experts // self.ranks

    @property
    def expert_bytes(self) -> int:
        """Bytes of one expert's gate, up and down projections."""
        return 3 * self.hidden * self.intermediate * BYTES_PER_WEIGHT

    def facts(self) -> dict[str, Any]:
        """The preset as JSON holds it."""
        return {
            "name": self.name,
            "num_experts": self.num_experts,
            "k": self.k,
            "hidden": self.hidden,
            "intermediate": self.intermediate,
            "ranks": self.ranks,
            "local_experts": self.local_experts,
            "expert_bytes": self.expert_bytes,
            "comparable": self.comparable,
            "note": self.note,
        }


def _number(key: str) -> int:
    return int(str(CONFIG[key]))


def _expert_parallel(ranks: int) -> Preset:
    return Preset(
        f"qwen3-235b-ep{ranks}",
        128,
        8,
        4096,
        1536,
        ranks,
        QWEN3_235B,
        False,
        f"Qwen3-235B-A22B, the first of {ranks} expert-parallel ranks: routing sees all 128"
        f" experts, the rank reads its own {128 // ranks}; the paper has no expert parallelism",
    )


PRESETS = {
    preset.name: preset
    for preset in (
        Preset("qwen3-30b", 128, 8, 2048, 768, 1, QWEN3_30B, True, "Qwen3-30B-A3B on one device"),
        Preset(
            "qwen3-235b-tp8",
            128,
            8,
            4096,
            1536 // 8,
            1,
            QWEN3_235B,
            True,
            "Qwen3-235B-A22B, one of 8 tensor-parallel ranks; no all-reduce here, the paper's"
            " latency has one",
        ),
        *(_expert_parallel(ranks) for ranks in (8, 16, 64)),
        Preset(
            "demo",
            _number("num_experts"),
            _number("num_experts_per_tok"),
            _number("hidden_size"),
            _number("moe_intermediate_size"),
            1,
            QWEN3_30B,
            False,
            "The demo model's layer: experts so small that calling them takes longer than reading"
            " them",
        ),
    )
}
