"""The controller under steps of load, and each of its rungs alone under the same: who keeps target
and floor."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, NamedTuple

from loadtest import load_steps
from loadtest.load_steps import Span, Step
from oea_server.client.ask import ask
from oea_server.client.remote import Remote
from oea_server.controller.rungs import Rungs

CONTROLLER = "controller"
PATIENCE = 60.0


class Plan(NamedTuple):
    """What is measured.

    Args:
        target: seconds between two tokens of a chat, as a mean of a span.
        floor: share of the router mass below which no rung is to serve.
        alone: whether each rung within the floor is measured by itself, too.
    """

    rungs: Rungs
    target: float
    floor: float
    load: Sequence[Step]
    rounds: int
    alone: bool
    seed: int


def measure(server: Remote, plan: Plan) -> dict[str, Any]:
    """Play the load to each side, in turns at random; the server's controller is left off.

    Raises:
        RuntimeError: the server refused a change.
    """
    names = [rung.name for rung in plan.rungs.rungs]
    allowed = [rung.name for rung in plan.rungs.rungs if rung.mass_kept >= plan.floor]
    sides = [CONTROLLER, *(allowed if plan.alone else [])]
    flags = server.config()["started_with"]
    played: list[dict[str, Any]] = []
    for number in range(plan.rounds):
        for side in random.Random(f"{plan.seed}/{number}").sample(sides, len(sides)):
            switch(server, on=side == CONTROLLER)
            if side != CONTROLLER:
                server.steer(**plan.rungs.knobs(names.index(side), flags))
            print(f"round {number + 1} of {plan.rounds}: {side}", flush=True)
            server.settled_metrics()  # or the first span would count what came before
            reasons = Reasons(server)
            spans = load_steps.play(server.url, plan.load, f"{number} {side}", reasons.look)
            played.append(
                {
                    "round": number,
                    "side": side,
                    "moves": reasons.moves,
                    "spans": [s._asdict() for s in spans],
                }
            )
    switch(server, on=False)
    return {
        "benchmark": "steer",
        "plan": _shown(plan),
        "played": played,
        "rows": judge(plan, played),
    }


def switch(server: Remote, on: bool) -> None:
    """The server's controller, on from its safe rung or off.

    Raises:
        RuntimeError: it was refused.
    """
    reply = ask(
        "PUT", f"{server.url}/oea/controller", server.key, json={"on": on}, timeout=PATIENCE
    )
    if not reply.ok:
        raise RuntimeError(f"the controller was not switched: {reply.text}")


class Reasons:
    """Looks at a server's metrics, and notes what its controller says whenever that changes."""

    def __init__(self, server: Remote) -> None:
        self.server, self.moves, self.looks = server, list[dict[str, Any]](), 0

    def look(self) -> dict[str, float]:
        """The metrics now."""
        state = ask(
            "GET", f"{self.server.url}/oea/controller", self.server.key, timeout=PATIENCE
        ).json()
        said = {name: state[name] for name in ("mode", "rung", "saturated")}
        if not self.moves or any(self.moves[-1][name] != said[name] for name in said):
            self.moves.append({"look": self.looks, **said, "reason": state["reason"]})
        self.looks += 1
        return self.server.metrics()


def judge(plan: Plan, played: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row a side, over all rounds, and one for each step of load."""
    rows = []
    for side in dict.fromkeys(each["side"] for each in played):
        spans = [Span(**span) for each in played if each["side"] == side for span in each["spans"]]
        row = {"side": side, **_judged(plan, spans)}
        row["steps"] = [
            _judged(plan, [s for s in spans if s.step == i]) for i in range(len(plan.load))
        ]
        rows.append(row)
    return rows


def _judged(plan: Plan, spans: Sequence[Span]) -> dict[str, Any]:
    """Of spans in which tokens came: how many miss the target or the floor; their means over tokens
    and steps."""
    served = [span for span in spans if span.tpot is not None]
    tokens = sum(span.tokens for span in served)
    counted = [span for span in served if span.mass_kept is not None and span.unique is not None]
    return {
        "spans": len(served),
        "late": sum(span.tpot > plan.target for span in served if span.tpot is not None),
        "poor": sum(span.mass_kept < plan.floor for span in counted if span.mass_kept is not None),
        "tpot": _mean([(span.tpot, span.tokens) for span in served]),
        "mass_kept": _mean([(span.mass_kept, span.tokens) for span in counted]),
        "unique": _mean([(span.unique, 1) for span in counted]),
        "tokens": tokens,
    }


def _mean(weighed: Sequence[tuple[float | None, int]]) -> float | None:
    total = sum(weight for _, weight in weighed)
    return (
        sum(value * weight for value, weight in weighed if value is not None) / total
        if total
        else None
    )


def best_alone(rows: Sequence[dict[str, Any]]) -> str | None:
    """The single rung that misses target and floor least; of several the one that keeps most
    mass."""
    alone = [row for row in rows if row["side"] != CONTROLLER]
    return (
        min(alone, key=lambda row: (row["late"] + row["poor"], -row["mass_kept"]))["side"]
        if alone
        else None
    )


def _shown(plan: Plan) -> dict[str, Any]:
    return {
        **plan._asdict(),
        "rungs": [rung.model_dump() for rung in plan.rungs.rungs],
        "load": [step._asdict() for step in plan.load],
    }
