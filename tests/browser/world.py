"""What a server of the contract would answer, without a server: for the states that are slow or
rare on a real one."""

from __future__ import annotations

import math
import random
import time
from dataclasses import dataclass, field
from typing import Any

from oea_server.observe import change
from oea_server.settings import Settings

POLICIES = ["oea", "vanilla", "shadow", "pruned", "random"]
DEFAULTS: dict[str, Any] = Settings.model_construct().live()  # whatever OEA_* says here
EMPTY_MEANS = (
    *(
        "batch",
        "requests",
        "accepted",
        "rejected",
        "step_ms",
        "unique",
        "vanilla",
        "busiest",
        "mass_kept",
    ),
    *("shadow_unique", "shadow_busiest", "shadow_mass_kept"),
)


@dataclass
class World:
    """A server's state; its points are made up, but the same for the same second."""

    layers: int = 4
    experts: int = 128
    ranks: int = 1
    age: int = 300
    busy: bool = True
    drafts: bool = False
    settings: dict[str, Any] = field(default_factory=lambda: dict(DEFAULTS))
    schema: dict[str, Any] = field(default_factory=lambda: change.SCHEMA)
    version: int = 0
    # second -> (version, policy) from there on
    changes: dict[int, tuple[int, str]] = field(default_factory=dict)
    policies: list[str] = field(default_factory=lambda: list(POLICIES))
    fixed: str | None = None
    active: bool = True
    reason: str = ""
    latency: dict[str, Any] | None = None
    by_batch: dict[str, dict[str, float]] = field(default_factory=dict)  # of share and mix
    tiers: list[dict[str, Any]] = field(default_factory=list)
    skew: float = 0.0  # of the server's clock
    controller: dict[str, Any] | None = None

    @property
    def now(self) -> float:
        return time.time() + self.skew

    @property
    def config(self) -> dict[str, Any]:
        return {
            "version": self.version,
            "settings": self.settings,
            "started_with": DEFAULTS,
            "k0_by_batch": {"1": 8, "2": 6, "4": 5, "8": 4, "16": 3, "32": 3, "64": 3, "128": 3},
            **self.by_batch,
            "active": self.active,
            "reason": self.reason,
            "policies": self.policies,
            "fixed": self.fixed,
            "ranks_agree": True,
            "model": {
                **{
                    "layers": self.layers,
                    "num_experts": self.experts,
                    "top_k": 8,
                    "ranks": self.ranks,
                },
                "expert_bytes": 9437184,
            },
        }

    def change(self, changes: dict[str, Any]) -> None:
        self.settings = {**self.settings, **changes}
        self.version += 1
        self.changes[int(self.now)] = (self.version, self.settings["policy"])

    def stats(self, since: float) -> dict[str, Any]:
        now = self.now
        since = 0.0 if since > now + 1 else since  # of a clock that was ahead
        seconds = range(int(max(since + 1, now - min(self.age, 600))), int(now) + 1)
        points = [self._point(second) for second in seconds if second > since]
        busy = [
            point
            for point in map(self._point, range(int(now) - 60, int(now) + 1))
            if point["steps"]
        ]
        counts: dict[str, dict[str, int]] = {"unique": {}, "vanilla": {}, "shadow": {}}
        for point in busy:
            dice = random.Random(point["t"])
            for name, key in (
                ("unique", "unique"),
                ("vanilla", "vanilla"),
                ("shadow", "shadow_unique"),
            ):
                for _ in range(point["steps"] if point[key] is not None else 0):
                    read = str(max(1, round(dice.gauss(point[key], point[key] / 12))))
                    counts[name][read] = counts[name].get(read, 0) + 1
        total = {
            **{
                "steps": 1000,
                "tokens_per_step": 15.8,
                "step_ms": 31.2,
                "unique_experts": 38.2,
                "busiest_rank": None,
            },
            **{
                "vanilla_unique_experts": 77.0,
                "mass_kept": 0.86,
                "tokens": 64000,
                "assignments": 512000,
            },
            **{"piggybacked": 300000, "bytes_read": 10**12, "bytes_saved": 10**12},
        }
        return {
            "t": now,
            "config": self.config,
            "points": points,
            "recent": total,
            "total": total,
            "layers": [{"layer": layer, **total} for layer in range(self.layers)],
            "distribution": counts,
            "bypassed": {"prefill": 160, "schedule": 3} if self.busy else {},
            "shadow": None,
            "latency": self.latency,
            "tiers": self.tiers,
            "controller": self.controller,
        }

    def _point(self, second: int) -> dict[str, Any]:
        version, policy = self._in_force(second)
        point: dict[str, Any] = {
            "t": float(second),
            "steps": 0,
            "policy": policy,
            "version": version,
            "layers": [],
        }
        point |= dict.fromkeys(EMPTY_MEANS)
        if not self.busy or 100 <= self.now - second < 112:
            return point
        dice = random.Random(second)
        swing = 1 + 0.05 * math.sin(second / 17) + dice.gauss(0, 0.012)
        vanilla, oea = 0.6 * self.experts * swing, 0.298 * self.experts * swing
        served = oea if policy == "oea" else vanilla
        point |= {"steps": 30, "batch": 15 + swing, "vanilla": vanilla, "unique": served}
        point |= {
            "step_ms": 9 + 0.26 * served + dice.gauss(0, 0.6),
            "mass_kept": 0.86 if policy == "oea" else 1.0,
        }
        if self.drafts:
            point |= {"requests": 4.0, "accepted": 2.25, "rejected": 6.5}
        if self.ranks > 1:
            point["busiest"] = served / self.ranks * 1.4
        if policy == "shadow":
            point |= {"shadow_unique": oea, "shadow_mass_kept": 0.86}
        shape = [
            1 + 0.35 * math.sin(layer * 1.7) + 0.15 * math.sin(layer / 9)
            for layer in range(self.layers)
        ]
        point["layers"] = [served * factor * (1 + dice.gauss(0, 0.02)) for factor in shape]
        return point

    def _in_force(self, second: int) -> tuple[int, str]:
        before = [change for when, change in sorted(self.changes.items()) if when <= second]
        if before:
            return before[-1]
        return (0, DEFAULTS["policy"]) if self.changes else (self.version, self.settings["policy"])
