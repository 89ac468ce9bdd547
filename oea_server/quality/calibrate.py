"""From an evaluation to a schedule: at each batch size the smallest k0 that costs no more than was allowed."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from oea_server.bench.report import table
from oea_server.observe.latency import Line, nearest
from oea_server.routing.schedule import Schedule

Record = Mapping[str, Any]


class Choice(NamedTuple):
    """One batch size.

    Args:
        k0: what was chosen; the model's k if nothing smaller fits.
        increase: in cross-entropy, nats per token, and the upper end of its 95 % interval.
        unique: T under it, and under vanilla.
        latency: of a layer under it over vanilla's, by a line of `bench moe`; None without one.
    """

    batch: int
    k0: int
    increase: float
    high: float
    unique: float
    vanilla: float
    latency: float | None


def choose(record: Record, budget: float, k: int, lines: Sequence[Line] = ()) -> list[Choice]:
    """For each batch size that was evaluated, ascending. A larger batch loses less, so what it needs a smaller one gets
    as well, whatever chance said there: k0 never rises with the batch.

    Args:
        record: of `oea-server eval`, with arms `oea:K0`.
        budget: nats per token that the upper end of the increase may reach.
        k: the model's experts per token.

    Raises:
        ValueError: the record has no such arms.
    """
    found: list[Choice] = []
    least = 1
    for batch in sorted(record["batches"], reverse=True):
        rows = {row["arm"]: row for row in record["rows"] if row["batch"] == batch}
        tried = {k0: rows[f"oea:{k0}"] for k0 in range(1, k) if f"oea:{k0}" in rows} | {k: rows["vanilla"]}
        if len(tried) == 1:
            raise ValueError(f"the evaluation has no arms oea:K0 at B={batch}")
        # a lone token's floor is all that it gets
        k0 = k if batch == 1 else min(k0 for k0, row in tried.items() if k0 >= least and row["increase"][2] <= budget)
        least = k0
        unique, vanilla = tried[k0]["unique"][0], rows["vanilla"]["unique"][0]
        line = nearest(list(lines), batch) if lines else None
        latency = None if line is None else line.at(unique) / line.at(vanilla)
        _, _, high = tried[k0]["increase"]
        found.append(Choice(batch, k0, tried[k0]["increase"][0], high, unique, vanilla, latency))
    return found[::-1]


def budget(text: str, record: Record) -> float:
    """Nats per token: a number of them, or a percentage of vanilla's cross-entropy.

    Raises:
        ValueError: it is neither, or below 0.
    """
    share = text.strip().endswith("%")
    try:
        value = float(text.strip().removesuffix("%"))
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < 0:
        raise ValueError(f"--budget={text}: is not a number of nats, nor a percentage such as 1%, 0 or more")
    if not share:
        return value
    vanilla = next(row["loss"][0] for row in record["rows"] if row["arm"] == "vanilla")
    return float(vanilla) * value / 100


def schedule(choices: Sequence[Choice], k: int) -> Schedule:
    """As `--oea-k0` takes it: each batch size's k0 holds until the next that was evaluated."""
    steps = {1: k} | {each.batch: each.k0 for each in choices}
    kept = [(batch, k0) for batch, k0 in sorted(steps.items())]
    return Schedule(tuple(step for i, step in enumerate(kept) if i == 0 or step[1] != kept[i - 1][1]))


def shown(choices: Sequence[Choice]) -> str:
    """What was chosen and what it buys, as a table."""
    rows = [
        [
            str(each.batch),
            str(each.k0),
            f"{each.increase:+.4f} (at most {each.high:+.4f})",
            f"{each.unique:.1f} of {each.vanilla:.1f}",
            "–" if each.latency is None else f"{each.latency:.2f}",
        ]
        for each in choices
    ]
    return "\n".join(table(["batch", "k0", "increase, nats", "T of vanilla's", "layer over vanilla"], rows))


def save(path: Path, record: Record, choices: Sequence[Choice], budget: float, k: int) -> None:
    """What `--oea-schedule` reads, with where it is from."""
    content = {
        "k0": str(schedule(choices, k)),
        "k": k,
        "budget_nats": budget,
        "choices": [each._asdict() for each in choices],
        "from": {name: record[name] for name in ("command", "model", "text", "seed", "machine", "versions")},
    }
    path.write_text(json.dumps(content, indent=1) + "\n")
