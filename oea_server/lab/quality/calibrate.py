"""From an evaluation to a schedule: at each batch size the rule that reads least and costs no more
than was allowed."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from oea_server.lab.quality import grammar
from oea_server.lab.records.tables import table
from oea_server.observe.latency import Line, nearest
from oea_server.routing.schedule import BY_BATCH, Schedule

Record = Mapping[str, Any]


class Choice(NamedTuple):
    """One batch size.

    Args:
        k0, share, mix: what was chosen; the model's k, 0 and 1, which is vanilla, if nothing else
            fits.
        increase: in cross-entropy, nats per token, and the upper end of its 95 % interval.
        unique: T under it, and under vanilla.
        latency: of a layer under it over vanilla's, by a line of `bench moe`; None without one.
    """

    batch: int
    k0: int
    share: float
    mix: float
    increase: float
    high: float
    unique: float
    vanilla: float
    latency: float | None


def choose(record: Record, budget: float, k: int, lines: Sequence[Line] = ()) -> list[Choice]:
    """For each batch size that was evaluated, ascending. A larger batch loses less. So a smaller
    batch gets at least what the larger one needs, even where the samples say otherwise: its rule
    reads at least as much.

    Args:
        record: of `oea-server eval`, with arms `oea:K0`, with or without `share` and `mix`.
        budget: nats per token that the upper end of the increase may reach.
        k: the model's experts per token.

    Raises:
        ValueError: the record has no such arms.
    """
    found: list[Choice] = []
    least = ""
    for batch in sorted(record["batches"], reverse=True):
        rows = {row["arm"]: row for row in record["rows"] if row["batch"] == batch}
        vanilla = rows["vanilla"]["unique"][0]
        tried = {arm: rule for arm in rows if (rule := _rule(arm, k)) is not None}
        if not tried:
            raise ValueError(f"the evaluation has no arms oea:K0 at B={batch}")
        tried["vanilla"] = (k, 0.0, 1.0)
        reads = {arm: rows[arm]["unique"][0] for arm in tried}
        floor = reads.get(least, 0.0)
        fit = [arm for arm in tried if reads[arm] >= floor and rows[arm]["increase"][2] <= budget]
        # a lone token's floor is all that it gets
        arm = least = "vanilla" if batch == 1 else min(fit, key=lambda each: reads[each])
        line = nearest(list(lines), batch) if lines else None
        latency = None if line is None else line.at(reads[arm]) / line.at(vanilla)
        increase, _, high = rows[arm]["increase"]
        found.append(Choice(batch, *tried[arm], increase, high, reads[arm], vanilla, latency))
    return found[::-1]


def _rule(label: str, k: int) -> tuple[int, float, float] | None:
    """k0, share and mix of an arm that a schedule can hold; None for others, and for what is
    vanilla."""
    try:
        says = grammar.read(label).says
    except grammar.ArmError:  # of another version
        return None
    if not isinstance(says, grammar.Oea) or says.model_fields_set - BY_BATCH.keys() or says.k0 > k:
        return None
    if says.k0 == k and not says.share:
        return None
    return says.k0, says.share, 1.0 if says.mix is None else says.mix


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
        raise ValueError(
            f"--budget={text}: is not a number of nats, nor a percentage such as 1%, 0 or more"
        )
    if not share:
        return value
    vanilla = next(row["loss"][0] for row in record["rows"] if row["arm"] == "vanilla")
    return float(vanilla) * value / 100


def schedules(choices: Sequence[Choice], k: int) -> dict[str, Schedule[float]]:
    """As `--oea-k0`, `--oea-share` and `--oea-mix` take them, by these names: what was chosen at a
    batch size holds until the next that was evaluated."""
    found = {}
    for name, vanilla in (("k0", k), ("share", 0.0), ("mix", 1.0)):
        steps = sorted(
            ({1: vanilla} | {each.batch: getattr(each, name) for each in choices}).items()
        )
        rising = tuple(step for i, step in enumerate(steps) if i == 0 or step[1] != steps[i - 1][1])
        found[name] = Schedule(rising, knob=BY_BATCH[name])
    return found


def flags(choices: Sequence[Choice], k: int) -> str:
    """The schedules as flags, without the schedules that change nothing."""
    found = schedules(choices, k).items()
    return " ".join(
        f"--oea-{name} '{each}'" for name, each in found if str(each) not in ("0.0", "1.0")
    )


def shown(choices: Sequence[Choice]) -> str:
    """What was chosen and what it buys, as a table."""
    rows = [
        [
            str(each.batch),
            str(each.k0),
            f"{each.share:g}",
            f"{each.mix:g}",
            f"{each.increase:+.4f} (at most {each.high:+.4f})",
            f"{each.unique:.1f} of {each.vanilla:.1f}",
            "–" if each.latency is None else f"{each.latency:.2f}",
        ]
        for each in choices
    ]
    header = [
        "batch",
        "k0",
        "share",
        "mix",
        "increase, nats",
        "T of vanilla's",
        "layer over vanilla",
    ]
    return "\n".join(table(header, rows))


def save(path: Path, record: Record, choices: Sequence[Choice], budget: float, k: int) -> None:
    """What `--oea-schedule` reads, with where it is from."""
    content = {
        **{name: str(each) for name, each in schedules(choices, k).items()},
        "k": k,
        "budget_nats": budget,
        "choices": [each._asdict() for each in choices],
        "from": {
            name: record[name]
            for name in ("command", "model", "text", "seed", "machine", "versions")
        },
    }
    path.write_text(json.dumps(content, indent=1) + "\n")
