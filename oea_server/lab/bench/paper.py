"""The paper's own numbers: arXiv 2511.02237 (v1, November 2025), simplified OEA at batch 16, N=128,
k=8.

MoE-layer latency and mean number of unique experts T, means over its four accuracy benchmarks.
Measured by the authors in SGLang on H100s, never by us; whatever prints them says so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

SOURCE = "arXiv 2511.02237"
BATCH = 16


@dataclass(frozen=True, slots=True)
class Published:
    """One model's row of the paper. Keys are k0; the model's k (8) stands for vanilla."""

    model: str
    setup: str
    experts: dict[int, float]
    """Mean T."""
    latency_us: dict[int, float]
    """MoE-layer latency, µs."""
    relative: dict[int, float]
    """Latency over vanilla's, as printed."""
    anchor: int
    """The k0 of the paper's headline, to whose T (beside vanilla's) synthetic logits are fitted."""

    def facts(self) -> dict[str, Any]:
        """The row as JSON holds it."""
        return {
            "source": SOURCE,
            "model": self.model,
            "setup": self.setup,
            "batch": BATCH,
            "experts": {str(k0): value for k0, value in self.experts.items()},
            "latency_us": {str(k0): value for k0, value in self.latency_us.items()},
            "relative": {str(k0): value for k0, value in self.relative.items()},
        }


VANILLA = 8
"""Both models take 8 experts per token, so a floor of 8 is vanilla."""

QWEN3_30B = Published(
    model="Qwen3-30B-A3B",
    setup="bf16 on one H100 80 GB",
    experts={3: 25.1, 4: 29.9, 5: 35.1, 6: 40.3, 7: 44.4, VANILLA: 48.8},
    latency_us={3: 106.8, 4: 120.9, 5: 136.0, 6: 151.3, 7: 163.0, VANILLA: 175.7},
    relative={3: 0.61, 4: 0.69, 5: 0.77, 6: 0.86, 7: 0.93, VANILLA: 1.0},
    anchor=3,
)
QWEN3_235B = Published(
    model="Qwen3-235B-A22B",
    setup="TP8 on 8 H100, all-reduce included",
    experts={3: 28.3, 4: 34.4, 5: 40.2, 6: 44.7, VANILLA: 54.0},
    latency_us={3: 87.7, 4: 94.8, 5: 101.4, 6: 106.9, VANILLA: 119.4},
    relative={3: 0.73, 4: 0.79, 5: 0.85, 6: 0.90, VANILLA: 1.0},
    anchor=5,
)
