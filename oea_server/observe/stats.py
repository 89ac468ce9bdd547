"""The body of `GET /oea/stats`: the last ten minutes second by second, and what they add up to."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from oea_server.observe import counts, latency, parts, snapshot, tiers
from oea_server.observe.counts import Totals
from oea_server.observe.quiet import Complaints, Failures
from oea_server.observe.tier_metrics import Served

logger = logging.getLogger(__name__)

POINTS = 600
"""Seconds that are kept."""

RECENT = 60
"""Seconds that "recent" speaks of."""

JUMP = 1.0
"""Seconds by which the wall clock may part from the steady one before it counts as set."""


class Stats:
    """Reads the schedulers' snapshots once a second and remembers what changed.

    Args:
        folder: where the snapshots lie; None for a server without metrics.
        lines: latency against experts, to predict with (`latency.read`).
        served: what clients got of each tier, of this process.
    """

    def __init__(
        self,
        folder: Path | None,
        lines: Sequence[latency.Line] = (),
        served: Callable[[], Mapping[str, Served]] = dict,
    ) -> None:
        self._served = served
        self._served_before: deque[Mapping[str, Served]] = deque(maxlen=RECENT + 1)
        """Since the start, second by second."""
        self._folder = folder
        self._lines = list(lines)
        self._points: deque[dict[str, Any]] = deque(maxlen=POINTS)
        self._totals: deque[Totals] = deque(maxlen=RECENT + 1)
        """Since the start, second by second."""
        self._state: dict[str, Any] | None = None
        self._newest = 0.0
        self._unchanged = 0
        """Looks in a row that found nothing new."""
        self._clock = time.time() - time.monotonic()
        """What to add to steady seconds for unix seconds."""
        self._failures = Failures(
            logger, "a look at the snapshots failed; /oea/stats shows what was before"
        )
        self._complaints = Complaints(logger, "/oea/stats")
        self._lock = threading.Lock()
        self.controller: Callable[[], dict[str, Any]] | None = None
        """What steers this server, if anything does (`GET /oea/controller`)."""

    def start(self) -> None:
        """Look once a second, in a thread that ends with the process."""
        threading.Thread(target=self._run, name="oea-stats", daemon=True).start()

    def _run(self) -> None:
        while True:
            time.sleep(1.0)
            self._failures.attempt(lambda: self.look(time.time(), time.monotonic()))

    def look(self, wall: float, steady: float) -> None:
        """Take in what was counted up to now.

        Args:
            wall: now, in unix seconds.
            steady: now, in seconds of the clock that nobody sets.
        """
        self._set_clock(wall - steady)
        if self._folder is None:
            return
        snapshots, unread = snapshot.read_all(self._folder)
        self._complaints.about(unread)
        counted = counts.together(snapshots)
        if counted is None:
            return
        newest = max(snapshots, key=lambda each: each.at)
        self._unchanged = self._unchanged + 1 if newest.at == self._newest else 0
        self._newest = newest.at
        # late rather than idle, as likely as not: what it counts comes with the next look
        if self._unchanged == 1:
            return
        state = newest.state
        with self._lock:
            before = self._totals[-1] if self._totals else None
            self._points.append(point(steady + self._clock, counted.since(before), state))
            self._totals.append(counted)
            self._served_before.append(dict(self._served()))
            if self._state is None or state["version"] >= self._state["version"]:
                self._state = state

    def learn(self, state: dict[str, Any]) -> None:
        """Take the configuration that a change led to: the schedulers write it within a second."""
        with self._lock:
            if self._state is not None:
                self._state = state

    def _set_clock(self, clock: float) -> None:
        """Follow a wall clock that was set, with all points: they stay in order, and as far apart
        as they were."""
        with self._lock:
            if abs(jump := clock - self._clock) <= JUMP:
                return
            self._clock = clock
            for each in self._points:
                each["t"] = round(each["t"] + jump, 3)

    @property
    def state(self) -> dict[str, Any] | None:
        """The configuration as the schedulers last wrote it, a second ago at most; None before."""
        return self._state

    def latest(self) -> Totals | None:
        """What was counted since the start; None before anything was."""
        with self._lock:
            return self._totals[-1] if self._totals else None

    def body(self, state: dict[str, Any], since: float = 0.0) -> dict[str, Any]:
        """The answer, with the points later than `since` (unix seconds). All points if `since` is
        yet to come, as for a client who asked before the clock was set back."""
        with self._lock:
            now = time.monotonic() + self._clock
            points = [
                dict(each) for each in self._points if each["t"] > since or since > now + JUMP
            ]
            totals, served = list(self._totals), list(self._served_before)
        answer: dict[str, Any] = {
            "t": round(now, 3),
            "config": state,
            "points": points,
            "missing": None,
        }
        answer["controller"] = self.controller() if self.controller else None
        if not totals:
            why = (
                "no statistics: start the server with --enable-metrics"
                if self._folder is None
                else "nothing yet"
            )
            return {
                **answer,
                **dict.fromkeys(("recent", "total", "shadow", "latency")),
                "tiers": [],
                "missing": state["reason"] if not state["model"]["layers"] else why,
                "layers": [],
                "distribution": {"unique": {}, "vanilla": {}, "shadow": {}},
                "bypassed": {},
            }
        total = totals[-1]
        recent = total.since(totals[0]) if len(totals) > RECENT else total
        seen = parts.split(recent.tally)
        shadowed = total.shadow.any()
        return {
            **answer,
            "recent": counts.summary(recent),
            "total": counts.summary(total),
            "layers": counts.by_layer(total),
            "distribution": {
                "unique": counts.distribution(seen.unique),
                "vanilla": counts.distribution(seen.vanilla),
                "shadow": counts.distribution(parts.split(recent.shadow).unique),
            },
            "bypassed": {reason: times for reason, times in total.bypassed.items() if times},
            "shadow": (
                {"recent": counts.prediction(recent), "total": counts.prediction(total)}
                if shadowed
                else None
            ),
            "latency": self._latency(recent) or self._latency(total),
            "tiers": tiers.rows(state["settings"], recent, total, served),
        }

    def _latency(self, counted: Totals) -> dict[str, Any] | None:
        """What the measured line says of a layer at these T; None without a line, steps, or a
        single rank."""
        if not self._lines or not counted.steps or counted.ranks > 1:
            return None
        batch = counted.step_tokens / counted.steps
        line = latency.nearest(self._lines, batch)
        seen = parts.split(counted.shadow if counted.shadow.any() else counted.tally)
        ours, theirs = counts.mean(seen.unique), counts.mean(seen.vanilla)
        if ours is None or theirs is None:
            return None
        return {
            **line._asdict(),
            "vanilla_us": round(line.at(theirs), 1),
            "oea_us": round(line.at(ours), 1),
            "change": round(line.at(ours) / line.at(theirs) - 1, 4),
        }


def point(t: float, fresh: Totals, state: dict[str, Any]) -> dict[str, Any]:
    """The page's numbers of one second."""
    unique, shadow = parts.split(fresh.tally).unique, parts.split(fresh.shadow)
    step = counts.summary(fresh)
    return {
        "t": round(t, 3),
        "steps": fresh.steps,
        "batch": step["tokens_per_step"],
        "requests": step["requests_per_step"],
        "accepted": step["accepted_length"],
        "rejected": step["rejected_experts"],
        "step_ms": step["step_ms"],
        "unique": step["unique_experts"],
        "vanilla": step["vanilla_unique_experts"],
        "busiest": step["busiest_rank"],
        "vanilla_busiest": step["vanilla_busiest_rank"],
        "mass_kept": step["mass_kept"],
        "shadow_unique": counts.mean(shadow.unique),
        "shadow_busiest": counts.mean(shadow.busiest) if fresh.ranks > 1 else None,
        "shadow_mass_kept": counts.mass_kept(fresh.shadow),
        "policy": state["settings"]["policy"],
        "version": state["version"],
        "layers": counts.means_by_layer(unique) if fresh.tally.any() else [],
    }
