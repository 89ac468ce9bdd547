"""From fronts to rungs: within each budget, the rule at each batch size that costs least."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from oea_server.lab.quality.calibrate import Choice, schedules
from oea_server.lab.quality.search.candidates import Candidate
from oea_server.lab.quality.search.front import Point, cheapest
from oea_server.lab.quality.search.race import READS_ALIKE

STEPS = (1 / 8, 1 / 4, 1 / 2, 1.0)
"""Of the budget, what the rungs below vanilla may lose."""

UNION = ("union", None)
WORTH = 0.01
"""Of vanilla's cost, what a rung saves at least over the one before it, mean over the batch
sizes."""

Costs = Callable[[int, Candidate], float]
"""A batch size and a rule -> cost there, measured on the first piece of the text at least."""


class Rung(NamedTuple):
    """One setting, by batch size.

    Args:
        budget: nats per token that the upper end of each interval keeps within.
        fixed: the pool and its budget, which are one for all batch sizes.
        chosen: batch size -> rule.
    """

    budget: float
    fixed: tuple[str, int | None]
    chosen: Mapping[int, Point]


def ladder(
    fronts: Mapping[int, Sequence[Point]], base: Candidate, budget: float, costs: Costs
) -> list[Rung]:
    """The rungs below vanilla, safest first; none if vanilla is all that the budget allows.

    A larger batch loses less. So a smaller batch gets at least what the larger one needs, even
    where the samples say otherwise: its rule costs at least as much. No rung costs more than the
    one before it anywhere.

    Args:
        fronts: batch size -> what was measured on all of the text, vanilla among it.
        budget: nats per token.
    """
    pools = sorted({point.rule.fixed for points in fronts.values() for point in points}, key=str)
    vanilla = {batch: _of(points, base) for batch, points in fronts.items()}
    rungs: list[Rung] = []
    before: Mapping[int, Point] = vanilla
    for allowed in (budget * step for step in STEPS):
        tried = []
        for fixed in pools:
            chosen = _chosen(fronts, vanilla, fixed, allowed, costs)
            if rungs and rungs[-1].fixed == fixed:
                chosen = {
                    batch: min(point, before[batch], key=_cost) for batch, point in chosen.items()
                }
            if all(point.cost <= before[batch].cost for batch, point in chosen.items()):
                tried.append(Rung(allowed, fixed, chosen))
        best = min(tried, key=lambda rung: _share(rung.chosen, vanilla))
        if _share(best.chosen, vanilla) <= _share(before, vanilla) - WORTH:
            rungs.append(best)
            before = best.chosen
    return rungs


def _chosen(
    fronts: Mapping[int, Sequence[Point]],
    vanilla: Mapping[int, Point],
    fixed: tuple[str, int | None],
    allowed: float,
    costs: Costs,
) -> dict[int, Point]:
    found: dict[int, Point] = {}
    larger: Candidate | None = None
    for batch in sorted(fronts, reverse=True):
        least = costs(batch, larger) if larger else 0.0
        fit = [
            point
            for point in fronts[batch]
            if point.rule.fixed == fixed
            and point.increase.high <= allowed
            and point.cost >= least * (1 - READS_ALIKE)
        ]
        # a lone token's floor is all that it gets
        found[batch] = vanilla[batch] if batch == 1 else cheapest([vanilla[batch], *fit])
        larger = found[batch].rule
    return {batch: found[batch] for batch in sorted(found)}


def content(
    rungs: Sequence[Rung], vanilla: Mapping[int, Point], model: str, source: str, k: int
) -> dict[str, Any]:
    """Rungs as `--oea-rungs` reads them (`controller.rungs`). Of a rung the least mass that it
    keeps at any batch size, and the largest loss, by the upper ends of the intervals; never better
    than the rung's before it."""
    rows: list[dict[str, Any]] = [
        {
            "name": "vanilla",
            "knobs": {"policy": "vanilla"},
            "mass_kept": 1.0,
            "nats": 0.0,
            "experts": 1.0,
        }
    ]
    for rung in rungs:
        shares = {
            str(batch): round(each.reads / vanilla[batch].reads, 4)
            for batch, each in rung.chosen.items()
        }
        kept = round(min(each.kept for each in rung.chosen.values()), 4)
        nats = round(max(0.0, *(each.increase.high for each in rung.chosen.values())), 5)
        rows.append(
            {
                "name": f"at most {rung.budget:.4g} nats",
                "knobs": knobs(rung, k),
                "mass_kept": min(kept, rows[-1]["mass_kept"]),
                "nats": max(nats, rows[-1]["nats"]),
                "experts": {"1": 1.0, **shares},
            }
        )
    return {"form": 1, "model": model, "source": source, "rungs": rows}


def knobs(rung: Rung, k: int) -> dict[str, str | int | None]:
    """A rung's knobs as `oea-server config set` takes them, all of them: a knob that a rung does
    not name is as the flags say."""
    pool, budget = rung.fixed
    found: dict[str, str | int | None] = {
        name: str(each) for name, each in schedules(choices(rung, rung.chosen), k).items()
    }
    return found | {"pool": pool, "rank_budget": budget}


def choices(rung: Rung, vanilla: Mapping[int, Point]) -> list[Choice]:
    """A rung's rules as `calibrate.save` keeps them; the latency is None where the cost is no
    time."""
    found = []
    for batch, each in rung.chosen.items():
        base, rule = vanilla[batch], each.rule
        latency = None if each.cost == each.reads else each.cost / base.cost
        knobs = rule.k0, rule.share, rule.mix
        found.append(
            Choice(
                batch,
                *knobs,
                each.increase.value,
                each.increase.high,
                each.unique,
                base.unique,
                latency,
            )
        )
    return found


def _share(chosen: Mapping[int, Point], vanilla: Mapping[int, Point]) -> float:
    """Cost over vanilla's, mean over the batch sizes."""
    return sum(each.cost / vanilla[batch].cost for batch, each in chosen.items()) / len(chosen)


def _of(points: Sequence[Point], rule: Candidate) -> Point:
    return next(each for each in points if each.rule == rule)


def _cost(point: Point) -> float:
    return point.cost
