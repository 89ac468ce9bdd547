"""`bench router`: our routing beside SGLang's, FlashInfer's and torch's top-k, on the same logits.

All take turns within a repetition. Theirs choose each token's top k, like our vanilla; ours also
count what they wake."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from oea_server.lab.bench import routers
from oea_server.lab.bench.bandwidth import Reader
from oea_server.lab.bench.logits import Source
from oea_server.lab.bench.timing import WARM_UP_ROUNDS, Call, capture, laps, shown_turns
from oea_server.lab.records import record
from oea_server.lab.records.stats import Spread
from oea_server.routing import Policy

US = 1e6
CALLS_PER_LAP = {"cuda": routers.LAYERS, "cpu": 1}
"""On a GPU one graph holds several routings, so that its own launch is not what is measured."""
BETWEEN_BYTES = 64 << 20
"""Bytes that a GPU reads between two routings, as a layer reads experts. The routing's instructions
are then gone from the caches, and no router overlaps with itself. The time of the same graph
without routings is taken off."""
OURS = "oea-server"


@dataclass(slots=True)
class Contender:
    """One router at one batch size and number of experts."""

    name: str
    policy: str
    call: Call
    unique_experts: int
    """T of one draw of logits."""
    same_choice: float | None
    """Share of rows with vanilla's experts; None where the policy may choose others."""
    seconds: list[float] = field(default_factory=list)


def measure(
    batches: list[int],
    experts: list[int],
    policies: dict[str, Policy],
    source: Source,
    *,
    k: int,
    repeats: int,
    seed: int,
    reader: Reader,
    device: torch.device,
) -> record.Record:
    """Time every router on every shape; returns what `report`, `plot` and JSON need, all but
    machine and command."""
    generator = torch.Generator().manual_seed(seed)
    reads: list[float] = []
    measured: list[tuple[int, int, dict[str, Contender]]] = []
    unavailable: dict[str, str] = {}
    kinds: set[str] = set()
    for num_experts in experts:
        for batch in batches:
            draws = (
                source.draw(WARM_UP_ROUNDS + repeats, batch, num_experts, generator)
                .bfloat16()
                .to(device)
            )
            logits, fresh = draws[0].clone(), draws[0].clone()
            between = _between(logits, fresh) if device.type == "cuda" else None
            mine, kind, missing = _contenders(logits, policies, k, between)
            rest = [capture(between, device, CALLS_PER_LAP["cuda"])] if between else []
            kinds |= kind
            unavailable |= missing
            what = f"router, {num_experts:4} experts, batch {batch:3}"
            for repetition, order in shown_turns(list(mine), repeats, what):
                for buffer in (logits, fresh):
                    buffer.copy_(draws[repetition])  # -1 and -2, the warm-up's, are the last two
                read, *times = laps(
                    device, [reader.read, *rest, *(mine[label].call for label in order)]
                )
                without = times.pop(0) if rest else 0.0
                if repetition < 0:
                    continue
                reads.append(read)
                for label, seconds in zip(order, times, strict=True):
                    mine[label].seconds.append((seconds - without) / CALLS_PER_LAP[device.type])
            measured.append((num_experts, batch, mine))
    bandwidth = reader.facts(reads)
    reference = next(name for name in measured[0][2] if all(name in mine for *_, mine in measured))
    return {
        "benchmark": "router",
        "k": k,
        "logits": source.facts(),
        "repeats": repeats,
        "seed": seed,
        "calls_per_lap": CALLS_PER_LAP[device.type],
        "bytes_between": BETWEEN_BYTES if device.type == "cuda" else 0,
        "routing": sorted(kinds),
        "unavailable": unavailable,
        "reference": reference,
        "bandwidth": bandwidth,
        "rows": [
            _row(each, num_experts, batch, k, mine[reference], bandwidth["gb_per_s"])
            for num_experts, batch, mine in measured
            for each in mine.values()
        ],
    }


def _contenders(
    logits: torch.Tensor, policies: dict[str, Policy], k: int, between: Call | None
) -> tuple[dict[str, Contender], set[str], dict[str, str]]:
    (batch, num_experts), device = logits.shape, logits.device
    times = CALLS_PER_LAP[device.type]
    ours = partial(routers.ours, k=k, batch=batch, num_experts=num_experts, ranks=1, device=device)
    expected = ours(Policy.vanilla())[1](logits)
    found: dict[str, Contender] = {}
    kinds: set[str] = set()

    def add(
        label: str,
        policy: str,
        route: Callable[[torch.Tensor], Any],
        experts: int,
        same: float | None,
    ) -> None:
        call = capture(lambda: (between and between(), route(logits)), device, times)
        found[label] = Contender(label.partition(" ")[0], policy, call, experts, same)

    working, missing = routers.others(k, logits)
    for name, router in working.items():
        ids = router(logits)[1]
        add(name, "vanilla", router, ids.unique().numel(), routers.same_choice(ids, expected.ids))
    for label, policy in policies.items():
        kind, route = ours(policy)
        kinds.add(kind)
        routing = route(logits)
        same = routers.same_choice(routing.ids, expected.ids) if label == "vanilla" else None
        timed = (
            routers.by_layer(policy, k, logits)
            if kind == "fused" and policy.width(k) == k
            else route
        )
        add(f"{OURS} {label}", label, timed, int(routing.pool.sum()), same)
    return found, kinds, missing


def _between(logits: torch.Tensor, fresh: torch.Tensor) -> Call:
    """What lies between the routings of two layers: much memory is read, then the gate writes
    logits."""
    weights = torch.ones(BETWEEN_BYTES // 4, device=logits.device)
    return lambda: (weights.sum(), logits.copy_(fresh))


def _row(
    each: Contender, num_experts: int, batch: int, k: int, reference: Contender, gb_per_s: float
) -> dict[str, Any]:
    latency = Spread.of(each.seconds)
    ratio = Spread.of(
        [mine / theirs for mine, theirs in zip(each.seconds, reference.seconds, strict=True)]
    )
    # bfloat16 logits in, float32 weights and int32 ids out
    moved = batch * (2 * num_experts + 8 * k)
    return {
        "router": each.name,
        "policy": each.policy,
        "batch": batch,
        "experts": num_experts,
        "unique_experts": each.unique_experts,
        "same_choice": each.same_choice,
        "latency_us": latency.median * US,
        "latency_us_quartiles": [latency.lower * US, latency.upper * US],
        "over_reference": ratio.median,
        "over_reference_quartiles": [ratio.lower, ratio.upper],
        "floor_us": moved / (gb_per_s * 1e9) * US,
    }
