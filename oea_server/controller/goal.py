"""What the controller is asked for, as it is written: `25ms`, `p95:40ms`; `0.95`, `0.02nats`."""

from __future__ import annotations

import re
from typing import NamedTuple

from oea_server.controller.law import Goal, Law
from oea_server.controller.rungs import Rungs, read
from oea_server.settings import Settings

TARGET = re.compile(
    r"(?:p(?P<percent>[1-9][0-9]?):)?(?P<number>[0-9]{1,6}(?:\.[0-9]{1,6})?)(?P<unit>ms|s)"
)
FLOOR = re.compile(r"(?P<number>[0-9]{1,3}(?:\.[0-9]{1,9})?)(?P<unit>nats)?")
BOUNDS = (0.0001, 60.0)
"""Seconds per token that a target may be."""


class Asked(NamedTuple):
    """All that steers the controller."""

    rungs: Rungs
    goal: Goal
    percentile: float | None
    """Of the times between two tokens, the share that must be within the target; None for their
    mean."""


def asked(settings: Settings) -> Asked | None:
    """What the settings ask for; None if there is to be no controller.

    Raises:
        ValueError: one line: a knob, its value and the bounds.
    """
    names = ("target_tpot", "rungs", "quality_floor")
    target, path, floor = (getattr(settings, name) for name in names)
    if target is None:
        if given := next((name for name in names[1:] if getattr(settings, name) is not None), None):
            raise ValueError(
                f"{given}={getattr(settings, given)}: without target_tpot there is no controller;"
                f" give one, or leave {given} out"
            )
        return None
    if path is None:
        raise ValueError(
            f"target_tpot={target}: the controller moves among rungs; name a file of them (rungs)"
        )
    if settings.policy != "oea":
        raise ValueError(
            f"target_tpot={target}: the controller steers policy=oea, this is"
            f" policy={settings.policy}; leave one of them out"
        )
    seconds, percentile = _target(target)
    goal = Goal(seconds, *_floor(floor))
    found = read(path, settings)
    Law(found, goal)
    return Asked(found, goal, percentile)


def problems(settings: Settings, workers: int = 1, metrics: bool = True) -> list[str]:
    """Why there can be no controller, if there is to be one.

    Args:
        workers: processes that serve HTTP.
        metrics: whether the server has any.
    """
    found = []
    try:
        asked(settings)
    except ValueError as error:
        found.append(str(error))
    target = f"target_tpot={settings.target_tpot}"
    if settings.target_tpot is not None and workers > 1:
        found.append(
            f"{target}: --tokenizer-worker-num {workers}: each worker would steer for itself; use 1"
        )
    if settings.target_tpot is not None and not metrics:
        found.append(
            f"{target}: the controller steers by the metrics, so it needs --enable-metrics"
        )
    return found


def _target(text: str) -> tuple[float, float | None]:
    match = TARGET.fullmatch(text)
    seconds = float(match["number"]) * (1 if match["unit"] == "s" else 1e-3) if match else 0.0
    if match is None or not BOUNDS[0] <= seconds <= BOUNDS[1]:
        raise ValueError(
            f"target_tpot={text}: not a time of 0.1ms to 60s such as 25ms, or p95:40ms for a"
            " percentile"
        )
    return seconds, int(match["percent"]) / 100 if match["percent"] else None


def _floor(text: str | None) -> tuple[float, float | None]:
    match = FLOOR.fullmatch(text or "0")
    number = float(match["number"]) if match else -1.0
    if match is None or (match["unit"] is None and number > 1):
        said = (
            "neither a share of router mass kept of 0 to 1 such as 0.95 nor a loss such as 0.02nats"
        )
        raise ValueError(f"quality_floor={text}: {said}")
    return (0.0, number) if match["unit"] else (number, None)
