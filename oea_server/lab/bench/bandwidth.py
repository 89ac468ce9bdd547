"""How fast this machine reads memory, measured in the same run as what is compared with it."""

from __future__ import annotations

from typing import Any

import torch

from oea_server.lab.bench.timing import Call, capture, laps
from oea_server.lab.records.stats import Spread

CPU_BYTES, GPU_BYTES = 1 << 30, 2 << 30
"""Far beyond any cache: reading it also evicts what the variant before left there."""
ROW = 1 << 20
TRIALS = 5


class Reader:
    """Reads a large buffer once per call, by the fastest of several ways found at the start.

    Args:
        device: whose memory to read.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.bytes = GPU_BYTES if device.type == "cuda" else CPU_BYTES
        buffer = torch.ones(self.bytes // 4, dtype=torch.float32, device=device)
        ways: dict[str, Call] = {
            "sum of rows, float32": lambda: buffer.view(-1, ROW).sum(dim=1),
            "maximum, float32": buffer.max,
            "sum, int64": lambda: buffer.view(torch.int64).sum(),
        }
        if device.type == "cuda":
            first, second = buffer.chunk(2)
            ways["copy, half to half (bytes read and written)"] = lambda: second.copy_(first)
        calls = {name: capture(way, device) for name, way in ways.items()}
        self.ways = {
            name: self.gb_per_s(
                Spread.of([laps(device, [call, call])[1] for _ in range(TRIALS)]).median
            )
            for name, call in calls.items()
        }
        """GB/s by way of reading, medians of a few trials."""
        self.way = max(self.ways, key=lambda name: self.ways[name])
        self.read = calls[self.way]

    def gb_per_s(self, seconds: float) -> float:
        """Bandwidth of one read."""
        return self.bytes / seconds / 1e9

    def facts(self, seconds: list[float]) -> dict[str, Any]:
        """What was measured, from the reads that took turns with the variants, as JSON holds it."""
        spread = Spread.of(seconds)
        return {
            "gb_per_s": self.gb_per_s(spread.median),
            "gb_per_s_quartiles": [self.gb_per_s(spread.upper), self.gb_per_s(spread.lower)],
            "reads": len(seconds),
            "bytes": self.bytes,
            "way": self.way,
            "ways_gb_per_s": self.ways,
        }
