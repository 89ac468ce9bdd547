"""A server to be steered, without one: load, noise, late measurements, and a line that nobody told
truly."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from oea_server.controller.law import Goal, Law, Seen
from oea_server.controller.rungs import Rungs

PERIODS = 240
RISE, FALL = PERIODS // 4, 3 * PERIODS // 4
RAMP = 20

KNOWN = (
    *(
        ("vanilla", "8", 1.0, 0.0, 1.0, 1.0),
        ("k0=6", "6", 0.985, 0.002, 0.9, 0.8),
        ("k0=5", "5", 0.97, 0.005, 0.82, 0.68),
    ),
    *(("k0=4", "4", 0.95, 0.01, 0.74, 0.57), ("k0=3", "3", 0.92, 0.02, 0.66, 0.46)),
)
RUNGS = Rungs.model_validate(
    {
        "form": 1,
        "rungs": [
            {
                "name": name,
                "knobs": {"k0": k0},
                "mass_kept": kept,
                "nats": nats,
                "experts": {"1": 1.0, "4": few, "32": many},
            }
            for name, k0, kept, nats, few, many in KNOWN
        ],
    }
)


@dataclass
class Plant:
    """One server under one load, all of it drawn from a seed."""

    seed: int
    random: random.Random = field(init=False)

    def __post_init__(self) -> None:
        draw = self.random = random.Random(self.seed)
        self.slope = draw.uniform(0.05e-3, 0.3e-3)
        self.base = draw.uniform(4e-3, 12e-3)
        self.told = self.slope * draw.choice((0, 0.1, 0.3, 1, 3, 10))
        self.late = draw.choice((False, False, True))
        self.noise = draw.choice((0.005, 0.01, 0.03))
        self.ramp = draw.choice((False, True))
        self.many, self.few = draw.randint(8, 48), draw.randint(1, 4)
        self.reads = [1.0, *(draw.uniform(0.9, 1.1) for _ in KNOWN[1:])]
        """Factors by which rungs read more or fewer experts than is known of them."""
        self.keeps = [0.0, *(draw.uniform(-0.02, 0.01) for _ in KNOWN[1:])]
        """What rungs keep beyond the mass that is known of them."""
        floor = draw.choice((0.0, 0.94, 0.96))
        slowest, fastest = (self.time(rung, self.many) for rung in (0, len(KNOWN) - 1))
        self.goal = Goal(draw.uniform(0.9 * fastest, 1.05 * slowest), floor)

    def load(self, period: int) -> float:
        """Requests in a step."""
        if not self.ramp:
            return self.many if RISE <= period < FALL else self.few
        way = min((period - RISE) / RAMP, 1.0, 1.0 - (period - FALL) / RAMP)
        return self.few + (self.many - self.few) * max(0.0, way)

    def vanilla(self, batch: float) -> float:
        """Experts that independent tokens would wake, were four of five of them independent."""
        return float(128 * (1 - (1 - 8 / 128) ** (0.8 * batch)))

    def unique(self, rung: int, batch: float) -> float:
        return self.vanilla(batch) * min(1.0, RUNGS.rungs[rung].share_at(batch) * self.reads[rung])

    def time(self, rung: int, batch: float) -> float:
        return self.base + self.slope * self.unique(rung, batch)

    def kept(self, rung: int) -> float:
        return min(1.0, RUNGS.rungs[rung].mass_kept + self.keeps[rung])

    def run(self) -> list[int]:
        """The rung of each period, as the law chose it."""
        law = Law(RUNGS, self.goal, self.told)
        rungs: list[int] = []
        true: list[Seen] = []
        for period in range(PERIODS):
            batch, rung = self.load(period), law.rung
            rungs.append(rung)
            time = self.time(rung, batch) * (1 + self.random.gauss(0, self.noise))
            unique = self.unique(rung, batch)
            true.append(Seen(time, batch, self.vanilla(batch), unique, self.kept(rung)))
            law.decide(self._measured(true, rungs))
        return rungs

    def _measured(self, true: list[Seen], rungs: list[int]) -> Seen | None:
        """The period, or where measurements are late the one before, and a mixture of both after a
        change."""
        if not self.late:
            return true[-1]
        if len(true) < 2:
            return None
        if rungs[-1] != rungs[-2]:
            return true[-1]._replace(tpot=(true[-1].tpot + true[-2].tpot) / 2)
        return true[-2]
