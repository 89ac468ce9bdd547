"""What one policy did at one concurrency of `bench serve`, round by round."""

from __future__ import annotations

from dataclasses import dataclass, field

from oea_server.lab.bench.load import Load


@dataclass(slots=True)
class Rounds:
    """One value for each round; of steps, the round's mean."""

    loads: list[Load] = field(default_factory=list)
    experts: list[float] = field(default_factory=list)
    batch: list[float] = field(default_factory=list)
    mass_kept: list[float] = field(default_factory=list)
    step_seconds: list[float] = field(default_factory=list)
    accepted: list[float] = field(default_factory=list)
    """Tokens that a request got of a verify pass, its first token aside; empty without drafts."""

    def tpot(self) -> list[float]:
        """Seconds per token, the mean over a round's chats."""
        return [sum(load.tpot) / len(load.tpot) for load in self.loads]
