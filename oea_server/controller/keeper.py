"""The controller beside a running server: looks once a period, decides by the law, and has all
ranks change at once.

Whoever changes knobs by hand is right: it stands back then, until it is switched on again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

from oea_server.controller.goal import Asked
from oea_server.controller.law import Decision, Law
from oea_server.controller.token_times import NOTHING
from oea_server.controller.watch import Look, seen
from oea_server.observe.quiet import Failures
from oea_server.oneline import LINE, oneline
from oea_server.settings import ROUTES

logger = logging.getLogger(__name__)

PERIOD = 5.0
"""Seconds of serving that a decision is made of."""
LAG = 2.0
"""Seconds after a change in which counters still tell of what was before it: they are written once
a second."""

TYPICAL = 16.0
"""Requests in a step at which a measured line is read: it only starts what is learned later."""

Mode = Literal["on", "off", "by hand"]


class RefusedError(Exception):
    """One line: why the schedulers did not take a change."""


class Server(NamedTuple):
    """The way to what is steered."""

    look: Callable[[], Look]
    state: Callable[[], dict[str, Any]]
    """`oea_server.engine.control.state_of`, now.

    Raises:
        RefusedError
    """
    change: Callable[[Mapping[str, Any]], dict[str, Any]]
    """All knobs given, on all ranks, between two steps; the state after it.

    Raises:
        RefusedError
    """
    slope: Callable[[Mapping[str, Any], float], float]
    """Seconds of a token's time for one more expert in every layer, of a model (`state()["model"]`)
    and a batch size; 0 if not measured."""


class Keeper:
    """Steers a server."""

    def __init__(self, asked: Asked, server: Server) -> None:
        self.asked, self.server = asked, server
        self.mode: Mode = "on"
        self.law = Law(asked.rungs, asked.goal)
        self.last = Decision(0, "just started")
        self.flags: dict[str, Any] | None = None
        """The knobs that the server was started with; None before the first look at it."""
        self.knobs: dict[str, Any] = {}
        """The knobs that the controller has set."""
        self._before = Look(None, NOTHING)
        self.changing = False
        """Whether counters may still tell of what was before the last change."""
        self._failures = Failures(logger, "the controller failed; its rung serves on")
        self._turn = threading.Lock()

    def run(self, said: Callable[[], None]) -> None:
        """Decide once a period, for ever.

        Args:
            said: called after each, to say what holds.
        """
        while True:
            time.sleep(LAG if self.changing else PERIOD)
            self._failures.attempt(self.period)
            said()

    def period(self) -> None:
        """Decide about what was served since the last time; once the counters tell of it alone."""
        with self._turn:
            if self.mode != "on":
                return
            if self.flags is None:
                self._take_over()
                return
            if self.changing:
                self._before, self.changing = self.server.look(), False
                return
            if changed := self._changed_by_hand(self.server.state()):
                self._stand_back(changed)
                return
            after = self.server.look()
            period = seen(self._before, after, self.asked.percentile)
            self._before = after
            self._go(self.law.decide(period))

    def _take_over(self) -> None:
        state = self.server.state()
        self.law.slope = self.server.slope(state["model"], TYPICAL)
        # no rung has tiers
        flags = {name: knob for name, knob in state["started_with"].items() if name in ROUTES}
        self._set(self.law.rung, flags)
        self.flags = flags  # not before: a refused safe rung is asked for again
        logger.info("OEA: the controller is on, at rung %s", self.law.rungs[self.law.rung].name)

    def _go(self, decision: Decision) -> None:
        before = self.last.rung
        if decision.rung == before:
            if decision.saturated and not self.last.saturated:
                logger.warning("OEA: controller: %s", decision.reason)
            self.last = decision
            return
        names = [self.law.rungs[i].name for i in (before, decision.rung)]
        assert self.flags is not None
        try:
            self._set(decision.rung, self.flags)
        except RefusedError as error:
            self.law.refused(before)
            self.last = Decision(before, f"rung {names[1]} was refused: {error}", decision.error)
            logger.warning("OEA: controller: %s", oneline(self.last.reason, LINE))
            return
        self.last = decision
        logger.info("OEA: controller: rung %s -> %s: %s", *names, decision.reason)

    def _set(self, rung: int, flags: Mapping[str, Any]) -> None:
        knobs = self.asked.rungs.knobs(rung, flags)
        state = self.server.change(knobs)
        self.knobs = {name: state["settings"][name] for name in knobs}
        self.changing = True

    def _changed_by_hand(self, state: Mapping[str, Any]) -> list[str]:
        given = state["settings"]
        expected = {**(self.flags or {}), **self.knobs}
        return [f"{name}={given[name]}" for name in expected if given[name] != expected[name]]

    def _stand_back(self, changed: list[str]) -> None:
        self.mode = "by hand"
        self.last = Decision(self.law.rung, f"changed by hand: {oneline(', '.join(changed), LINE)}")
        logger.warning(
            "OEA: the controller stands back until it is switched on again: %s", self.last.reason
        )

    def switch(self, on: bool) -> None:
        """Turn the controller on, from the safe rung, or off, back to the knobs that the server
        started with.

        Raises:
            RefusedError: nothing changed.
        """
        with self._turn:
            if on:
                self.law = Law(self.asked.rungs, self.asked.goal, self.law.slope)
                self.last = Decision(0, "just switched on")
                if self.flags is not None:
                    self.server.change(self.flags)
                    self._set(0, self.flags)
                self.mode = "on"
            else:
                if self.flags is not None:
                    self.server.change(self.flags)
                self.knobs = {}
                self.mode = "off"
                self.last = Decision(self.law.rung, "switched off")
            logger.info("OEA: the controller is %s", self.mode)

    def state(self) -> dict[str, Any]:
        """The body of `GET /oea/controller`."""
        law, last = self.law, self.last
        return {
            "mode": self.mode,
            "rung": law.rungs[last.rung].name if self.mode == "on" else None,
            "rungs": [rung.name for rung in law.rungs],
            "allowed": [rung.name for rung in law.rungs[: law.lowest + 1]],
            "reason": last.reason,
            "target_ms": round(1e3 * self.asked.goal.tpot, 3),
            "percentile": self.asked.percentile,
            "error": None if last.error is None else round(last.error, 4),
            "saturated": last.saturated,
        }
