"""A/B on one server: two configurations of it by turns, switched live, compared pair by pair."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from rich.progress import track

from loadtest import paired, workload
from loadtest.client import Block, play
from loadtest.workload import Tenant
from oea_server.client.config_command import parsed
from oea_server.client.remote import Remote
from oea_server.lab.records.stats import percentiles

Knobs = dict[str, Any]
EXACT = "exact"
"""Beside a server's knobs: the share of a block's requests that wish to be exact."""

WARM_UP_PAIRS = 1
MS = 1e3


class Measure(NamedTuple):
    """A number of a block."""

    name: str
    unit: str
    what: str


MEASURES = (
    *(
        Measure(f"ttft_p{q}", "ms", f"time to first token, {q} % of requests are faster")
        for q in (50, 95)
    ),
    *(
        Measure(f"tpot_p{q}", "ms", f"time per token after the first, request by request, {q} %")
        for q in (50, 95, 99)
    ),
    *(Measure(f"itl_p{q}", "ms", f"gap between two chunks, {q} %") for q in (50, 95, 99)),
    Measure("tokens_per_s", "1/s", "output tokens per second of the block"),
    Measure("unique_experts", "", "T: experts read per MoE layer and decode step"),
    Measure(
        "mass_kept",
        "",
        "share of the router mass of the model's own top k that the chosen experts hold",
    ),
    Measure("tokens_in_a_step", "", "tokens per decode step"),
)


class Plan(NamedTuple):
    """What is measured.

    Args:
        pairs: blocks of each, in pairs that follow each other.
        chats: at once.
        requests: per block.
    """

    a: Knobs
    b: Knobs
    tenant: Tenant
    pairs: int
    chats: int
    requests: int
    seed: int


def knobs(text: str) -> Knobs:
    """``policy=oea,k0=1:8,2:6,min_batch=2``; none unsets.

    Raises:
        ValueError: a part is not KNOB=VALUE.
    """
    found: Knobs = {}
    # a schedule has commas of its own, before numbers
    for part in re.split(r",(?=\s*[a-z])", text):
        name, given, value = (each.strip() for each in part.partition("="))
        if not given or not re.fullmatch("[a-z][a-z0-9_-]*", name):
            raise ValueError(f"{text}: {part!r} is not KNOB=VALUE")
        found[name.replace("-", "_")] = parsed(value)
    return found


def orders(pairs: int, seed: int) -> list[tuple[str, str]]:
    """ABBA or BAAB, at random: neither is first more often than the other, nor in a rhythm that
    something else has."""
    dice, found = random.Random(f"order/{seed}"), list[tuple[str, str]]()
    while len(found) < pairs:
        first = dice.choice([("a", "b"), ("b", "a")])
        found += [first, first[::-1]]
    return found[:pairs]


def measure(server: Remote, plan: Plan, key: str | None = None) -> dict[str, Any]:
    """Play all blocks; the server is left as it was found.

    Raises:
        RuntimeError: the server refused a configuration.
    """
    found = server.config()["settings"]
    named = {name: found[name] for name in (*plan.a, *plan.b) if name in found}
    # what the other turned is turned back
    arms = {"a": {**named, **plan.a}, "b": {**named, **plan.b}}
    exact = {arm: _share(given.pop(EXACT, 0)) for arm, given in arms.items()}
    blocks: list[dict[str, Any]] = []
    schedule = [*orders(WARM_UP_PAIRS, plan.seed + 1), *orders(plan.pairs, plan.seed)]
    try:
        before = server.settled_metrics()
        for i, order in enumerate(
            track(schedule, description=f"pairs of blocks, {plan.chats} chats at once")
        ):
            for arm in order:
                server.steer(**arms[arm])
                block = play(server.url, _asks(plan, i, arm, exact[arm]), plan.chats, key)
                after = server.settled_metrics()
                if i >= WARM_UP_PAIRS:
                    blocks.append(
                        {"pair": i - WARM_UP_PAIRS, "arm": arm, **figures(block, before, after)}
                    )
                before = after
    finally:  # it may be somebody's server
        server.steer(**named)
    shown = {
        arm: {**given, **({EXACT: exact[arm]} if exact[arm] else {})} for arm, given in arms.items()
    }
    return {
        "benchmark": "ab",
        "server": found,
        "plan": _shown(plan),
        "arms": shown,
        **compare(blocks, plan.seed),
    }


def _share(given: Any) -> float:
    if not isinstance(given, int | float) or not 0 <= given <= 1:
        raise ValueError(f"{EXACT}={given}: not a share of requests, 0 to 1")
    return float(given)


def _asks(plan: Plan, pair: int, arm: str, exact: float) -> list[workload.Ask]:
    """A block's requests: of the same lengths in both blocks of a pair, in other words, so that
    none is cached. Those that wish to be exact are spread evenly."""
    asks = (
        next(workload.conversation(plan.tenant, plan.seed, f"pair {pair}", number, arm))
        for number in range(plan.requests)
    )
    return [replace(ask, exact=int((i + 1) * exact) > int(i * exact)) for i, ask in enumerate(asks)]


def figures(
    block: Block, before: Mapping[str, float], after: Mapping[str, float]
) -> dict[str, float]:
    """A block's `MEASURES`; the server's own are what its counters gained."""

    def gained(name: str) -> float:
        return after[name] - before.get(name, 0.0)

    times: dict[str, list[float]] = {
        "ttft": [each.ttft for each in block.streams if each.ttft is not None],
        "tpot": [each.tpot for each in block.streams if each.tpot is not None],
        "itl": [gap for each in block.streams for gap in each.gaps],
    }

    def percentile(name: str) -> float:
        kind, _, share = name.partition("_p")
        return percentiles(times[kind], int(share))[0] * MS

    steps = gained("oea_decode_batch_size_count")
    return {
        **{each.name: percentile(each.name) for each in MEASURES if each.unit == "ms"},
        "tokens_per_s": block.tokens_per_s,
        "unique_experts": gained("oea_unique_experts_sum") / gained("oea_unique_experts_count"),
        "mass_kept": gained("oea_kept_router_mass_total") / gained("oea_routed_tokens_total"),
        "tokens_in_a_step": gained("oea_decode_batch_size_sum") / steps,
    }


def compare(blocks: list[dict[str, Any]], seed: int) -> dict[str, Any]:
    """Measure by measure; which differ significantly, all measures looked at."""

    def of(arm: str, name: str) -> list[float]:
        # pairs are in order, in both
        return [block[name] for block in blocks if block["arm"] == arm]

    differences = [
        paired.difference(of("a", each.name), of("b", each.name), seed) for each in MEASURES
    ]
    verdicts = paired.holm([each.p for each in differences])
    rows = [
        {**measure._asdict(), **found._asdict(), "significant": verdict}
        for measure, found, verdict in zip(MEASURES, differences, verdicts, strict=True)
    ]
    return {"rows": rows, "blocks": blocks}


def _shown(plan: Plan) -> dict[str, Any]:
    tenant = {
        name: str(getattr(plan.tenant, name)) for name in ("prompt", "output", "turns", "prefix")
    }
    return {**plan._asdict(), "tenant": tenant}
