"""Which rung serves next: a target for the time per token, and a floor under quality that no target
moves.

Down at once, as far as the measured line ``time = a + b T`` says is needed; up one rung after a
dwell, and only where the line says that the target will hold there. Quality is no term in a sum: no
rung is chosen whose known mass is below the floor, and a rung whose measured mass is below it is
left at once, whatever the time, and barred for a while.

No clock, no server, no randomness: the object that steers a server is the one that is simulated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from oea_server.controller.rungs import Rungs


class Seen(NamedTuple):
    """One period, as measured after the last change had taken hold."""

    tpot: float
    """Seconds between two tokens of a request: the mean, or the percentile that the target is
    for."""
    batch: float
    """Requests in a decode step."""
    vanilla: float
    """Experts of a layer that vanilla would have read."""
    unique: float
    """Experts of a layer that were read (T)."""
    mass_kept: float | None
    """Share of the router's own top-k mass that the chosen experts held; None if nothing was
    counted."""


class Goal(NamedTuple):
    """What the operator asks of the controller."""

    tpot: float
    """Seconds."""
    mass_floor: float = 0.0
    nats_floor: float | None = None
    """Nats per token that a rung may lose, as calibrated."""


class Decision(NamedTuple):
    """What serves from now on, and why."""

    rung: int
    reason: str
    error: float | None = None
    """How far the time per token is from the target, as a share of it; None if nothing was
    measured."""
    saturated: bool = False
    """Whether the target is missed and quality allows nothing faster."""


MARGIN = 0.1
"""The dead band: up only where the time is expected to be this share below the target."""
DWELL = 3
"""Periods in which that must have held; and after which a climb has proved right."""
PROBE = 20
"""Periods as far below the target after which the rung above is tried, whatever is expected of it:
the line may be wrong."""
PATIENCE = 3
"""Periods without data in which a rung is held; then the safe one serves."""
BARRED = 16
"""Periods for which a rung that broke its promise is not tried again; twice as many each time."""
LONGEST = 512
SMOOTHING = 0.5
"""Weight of the newest period in what the line leaves over."""
OTHER_LOAD = 1.25
"""Factor by which vanilla's T must have changed for what was learned of the load to be
forgotten."""
LEARNED = 0.02
"""Share of vanilla's T by which T must have changed for a slope to be read off it."""


@dataclass
class Barrier:
    """How long a rung, and all below it, are not tried."""

    left: int = 0
    length: int = BARRED

    def set(self) -> None:
        self.left, self.length = self.length, min(2 * self.length, LONGEST)


class Law:
    """Chooses among rungs, one period after the other.

    Args:
        slope: seconds that an expert more in every layer adds to a token's time, if measured;
            learned else.

    Raises:
        ValueError: one line: no rung is within the floor.
    """

    def __init__(self, rungs: Rungs, goal: Goal, slope: float = 0.0) -> None:
        self.rungs, self.goal, self.slope = rungs.rungs, goal, slope
        allowed = [
            i for i, rung in enumerate(self.rungs) if self._promises(rung.mass_kept, rung.nats)
        ]
        if not allowed or allowed[0] != 0:
            raise ValueError(
                f"no rung is within the quality floor: the safest, {self.rungs[0].name}, is not;"
                " lower quality_floor, or put vanilla first"
            )
        self.lowest = allowed[-1]
        """The fastest rung that quality allows, by what was known beforehand."""
        self.rung = 0
        self.silent = self.good = self.below = 0
        """Periods in a row without data; in which the rung above would have done; as far below the
        target."""
        self.rest: float | None = None
        """Seconds of a token's time that the line leaves over: a, followed as the load changes."""
        self.before: Seen | None = None
        """The last period on another rung, under the same load."""
        self.load = 0.0
        self.slow = [Barrier() for _ in self.rungs]
        """Against rungs that turned out too slow when climbed to."""
        self.poor = [Barrier() for _ in self.rungs]
        """Against rungs that turned out to keep too little mass."""
        self.proving = 0
        """Periods for which the last move, if it was up, has yet to prove right."""
        self.proved = False
        """Whether the last move was back from a climb that failed."""

    def _promises(self, mass: float, nats: float | None) -> bool:
        bound = self.goal.nats_floor
        return mass >= self.goal.mass_floor and (
            bound is None or (nats is not None and nats <= bound)
        )

    def decide(self, seen: Seen | None) -> Decision:
        """What serves next.

        Args:
            seen: the period; None where data is missing, late, or nobody was served.
        """
        for barrier in (*self.slow, *self.poor):
            barrier.left = max(0, barrier.left - 1)
        if seen is None:
            return self._without_data()
        self.silent = 0
        self._learn(seen)
        error = seen.tpot / self.goal.tpot - 1
        if seen.mass_kept is not None and seen.mass_kept < self.goal.mass_floor and self.rung > 0:
            self.poor[self.rung].set()
            kept = (
                f"keeps {seen.mass_kept:.3f} of the router mass, the floor is"
                f" {self.goal.mass_floor:.3f}"
            )
            return self._move(self.rung - 1, seen, f"{self.rungs[self.rung].name} {kept}", error)
        if error > 0:
            return self._faster(seen, error)
        if self.proving:
            self.proving -= 1
            if not self.proving:
                self.slow[self.rung].length = BARRED
        self.proved = False
        return self._slower(seen, error)

    def _without_data(self) -> Decision:
        self.silent += 1
        self.good, self.below, self.before, self.rest = 0, 0, None, None
        if self.silent < PATIENCE or self.rung == 0:
            return Decision(self.rung, f"no data for {self.silent} periods: held")
        self.rung, self.proving = 0, 0
        return Decision(0, f"no data for {self.silent} periods: the safe rung")

    def _learn(self, seen: Seen) -> None:
        """The line, from this period; all that the last load taught is forgotten under another."""
        if not self.load / OTHER_LOAD <= seen.vanilla <= self.load * OTHER_LOAD:
            self.load, self.before, self.rest, self.good = seen.vanilla, None, None, 0
            self.slow = [Barrier() for _ in self.rungs]
        if (
            self.before is not None
            and abs(seen.unique - self.before.unique) > LEARNED * seen.vanilla
        ):
            found = (seen.tpot - self.before.tpot) / (seen.unique - self.before.unique)
            self.slope = max(0.0, found if not self.slope else (self.slope + found) / 2)
            self.before, self.rest = None, None
        over = seen.tpot - self.slope * seen.unique
        self.rest = over if self.rest is None else self.rest + SMOOTHING * (over - self.rest)

    def expected(self, rung: int, seen: Seen) -> float:
        """Seconds between two tokens on another rung, under this load."""
        assert self.rest is not None
        return self.rest + self.slope * self.rungs[rung].share_at(seen.batch) * seen.vanilla

    def _bottom(self) -> int:
        """The fastest rung that quality allows now."""
        barred = [i - 1 for i, barrier in enumerate(self.poor) if barrier.left]
        return max(0, min([self.lowest, *barred]))

    def _faster(self, seen: Seen, error: float) -> Decision:
        self.good = self.below = 0
        if self.proved:
            # it was within the target here before the climb: late data may still tell of that
            self.proved = False
            return Decision(
                self.rung,
                f"{_percent(error)} over the target, just back on a rung that held it",
                error,
            )
        if failed := bool(self.proving):
            self.slow[self.rung].set()
        bottom = self._bottom()
        if self.rung >= bottom:
            why = (
                "quality allows nothing faster"
                if bottom < len(self.rungs) - 1
                else "there is nothing faster"
            )
            return Decision(self.rung, f"{_percent(error)} over the target, and {why}", error, True)
        wanted = self.rung + 1
        if self.slope and error > MARGIN:  # less may be noise
            lower = range(wanted, bottom + 1)
            wanted = next(
                (i for i in lower if self.expected(i, seen) <= self.goal.tpot * (1 - MARGIN / 2)),
                bottom,
            )
        decision = self._move(wanted, seen, f"{_percent(error)} over the target", error)
        self.proved = failed
        return decision

    def _slower(self, seen: Seen, error: float) -> Decision:
        above = self.rung - 1
        fits = above >= 0 and not self.slow[above].left
        self.below = self.below + 1 if fits and error < -MARGIN else 0
        expected = fits and self.expected(above, seen) <= self.goal.tpot * (1 - MARGIN)
        self.good = self.good + 1 if expected else 0
        if self.good < DWELL and self.below < PROBE:
            return Decision(self.rung, "within the target", error)
        periods = self.below if self.below >= PROBE else self.good
        decision = self._move(
            above, seen, f"{_percent(-error)} below the target for {periods} periods", error
        )
        self.proving = DWELL
        return decision

    def refused(self, rung: int) -> None:
        """The rung that was chosen cannot serve: `rung` goes on."""
        self.poor[self.rung].set()
        self.rung, self.before = rung, None

    def _move(self, rung: int, seen: Seen, why: str, error: float) -> Decision:
        self.rung, self.before = rung, seen
        self.good = self.below = self.proving = 0
        self.proved = False
        return Decision(rung, why, error)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
