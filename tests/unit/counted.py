"""What a scheduler process counts, by hand: a tally, its steps, and a configuration."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from oea_server.observe.reporter import Sources
from oea_server.routing.tally import HostTally
from oea_server.settings import Settings


def state(policy: str = "oea", version: int = 0, **settings: Any) -> dict[str, Any]:
    """As `oea_server.engine.control.state_of`."""
    knobs = {**Settings.model_construct().live(), "policy": policy}  # whatever OEA_* says here
    active = policy not in ("vanilla", "shadow")
    return {
        "version": version,
        "settings": {**knobs, **settings},
        "started_with": knobs,
        "k0_by_batch": {"1": 8, "16": 3},
        "share_by_batch": {"1": 0.0, "16": 0.13},
        "mix_by_batch": {"1": 1.0, "16": 0.5},
        "active": active,
        "reason": "" if active else f"the policy is {policy}",
        "policies": ["oea", "vanilla", "shadow", "pruned", "random"],
        "fixed": None,
        "ranks_agree": True,
        "model": {
            "layers": 1,
            "num_experts": 16,
            "top_k": 8,
            "renormalize": True,
            "ranks": 1,
            "expert_bytes": 100,
        },
    }


class Scheduler:
    """One process. Change its fields, then report."""

    def __init__(self, layers: Sequence[int] = (0,), num_experts: int = 16, ranks: int = 1) -> None:
        self.tally, self.shadow = (HostTally(layers, num_experts, ranks) for _ in range(2))
        self.steps: list[tuple[int, float]] = []
        self.bypassed: Counter[str] = Counter({"prefill": 0, "policy": 0})
        self.state = state()
        self.requests = 0

    def read_steps(self) -> list[tuple[int, float]]:
        steps, self.steps = self.steps, []
        return steps

    @property
    def counted(self) -> Sources:
        sizes = dict.fromkeys(self.tally.row, 100)
        return Sources(
            *(self.tally, self.shadow, self.read_steps, self.bypassed, sizes, lambda: self.state),
            read_requests=lambda: self.requests,
        )
