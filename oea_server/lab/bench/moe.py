"""`bench moe`: one Mixture-of-Experts layer, routing included, policies side by side.

Every repetition draws new logits and shows them to all policies in turn. Before each turn a large
buffer is read: it evicts what the last policy's experts left in the caches, as a model's other
layers would, and its duration is this machine's bandwidth at that moment. What follows right after,
in a model too, is the gate: the product of the tokens with the router's weights, which is timed
with neither."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

import torch

from oea_server.lab.bench import paper, routers, worth
from oea_server.lab.bench.bandwidth import Reader
from oea_server.lab.bench.experts import Layer, open_layer
from oea_server.lab.bench.fit import Line, fit
from oea_server.lab.bench.logits import Source
from oea_server.lab.bench.presets import Preset
from oea_server.lab.bench.timing import WARM_UP_ROUNDS, Call, capture, laps, shown_turns
from oea_server.lab.records import record
from oea_server.lab.records.stats import Spread
from oea_server.routing import Policy, Routing

US = 1e6


@dataclass(slots=True)
class Turn:
    """One policy at one batch size: what to time, and what was seen."""

    layer: Call
    """Routing and experts."""
    routing: Call
    """Routing alone, without the experts."""
    result: list[Routing]
    """The last routing; one element, replaced by each call (a graph's replay rewrites its
    tensors)."""
    seconds: list[float] = field(default_factory=list)
    routing_seconds: list[float] = field(default_factory=list)
    experts: list[list[int]] = field(default_factory=list)
    """Per repetition, unique experts by rank."""


def measure(
    preset: Preset,
    batches: list[int],
    policies: dict[str, Policy],
    source: Source,
    *,
    repeats: int,
    seed: int,
    reader: Reader,
    device: torch.device,
) -> record.Record:
    """Run one preset; returns what `report`, `plot` and JSON need, all but machine and command."""
    layer = open_layer(preset, device, seed)
    generator = torch.Generator().manual_seed(seed)
    reads: list[float] = []
    turns_by_batch: dict[int, dict[str, Turn]] = {}
    kinds: set[str] = set()
    for batch in batches:
        draws = (
            source.draw(WARM_UP_ROUNDS + repeats, batch, preset.num_experts, generator)
            .bfloat16()
            .to(device)
        )
        hidden = torch.randn(batch, preset.hidden, generator=generator).bfloat16().to(device)
        logits, x = torch.empty_like(draws[0]), torch.empty_like(hidden)
        gate = _gate(hidden, preset.num_experts, device)
        mine: dict[str, Turn] = {}
        for label, policy in policies.items():
            logits.copy_(draws[0])
            x.copy_(hidden)
            kind, mine[label] = _turn(preset, policy, layer, logits, x, device)
            kinds.add(kind)
        what = f"{preset.name}, {source.kind} logits, batch {batch:3}"
        for repetition, order in shown_turns(list(policies), repeats, what):
            for label in order:
                turn = mine[label]
                logits.copy_(draws[repetition])  # -1 and -2, the warm-up's, are the last two
                x.copy_(hidden)  # SGLang's experts overwrite it
                read, _, whole, _, routing = laps(
                    device, [reader.read, gate, turn.layer, gate, turn.routing]
                )
                if repetition < 0:
                    continue
                reads.append(read)
                turn.seconds.append(whole)
                turn.routing_seconds.append(routing)
                turn.experts.append(turn.result[0].pool.view(preset.ranks, -1).sum(dim=1).tolist())
        turns_by_batch[batch] = mine
    bandwidth = reader.facts(reads)
    memory_us = preset.expert_bytes / (bandwidth["gb_per_s"] * 1e9) * US
    rows = [
        _row(label, batch, turn, mine.get("vanilla"), memory_us)
        for batch, mine in turns_by_batch.items()
        for label, turn in mine.items()
    ]
    lines = {
        batch: _line_of_turns(mine) if preset.ranks > 1 else _line_of_rows(rows, batch)
        for batch, mine in turns_by_batch.items()
    }
    for row in rows:
        line = lines[row["batch"]] if preset.ranks > 1 else None
        row["busiest_us"] = line.at(row["unique_experts_busiest_rank"]) if line else None
    made: record.Record = {
        "benchmark": "moe",
        "preset": preset.facts(),
        "logits": source.facts(),
        "repeats": repeats,
        "seed": seed,
        "routing": sorted(kinds),
        "experts": {"kind": layer.kind, "why": layer.why},
        "bandwidth": bandwidth,
        "memory_us_per_expert": memory_us,
        "rows": rows,
        "fits": [_fit(batch, line, memory_us) for batch, line in lines.items()],
        "paper": preset.published.facts(),
        "beside_paper": _beside_paper(
            rows, preset, lines.get(paper.BATCH) if preset.comparable else None
        ),
    }
    return made | {"worth": worth.judged(made)}


def _gate(hidden: torch.Tensor, num_experts: int, device: torch.device) -> Call:
    """hidden [B, H] -> [B, N], thrown away: the logits are the source's."""
    weights = torch.randn(hidden.shape[1], num_experts).to(hidden)
    return capture(lambda: hidden @ weights, device)


def _turn(
    preset: Preset,
    policy: Policy,
    layer: Layer,
    logits: torch.Tensor,
    x: torch.Tensor,
    device: torch.device,
) -> tuple[str, Turn]:
    kind, route = routers.ours(
        policy,
        k=preset.k,
        batch=len(logits),
        num_experts=preset.num_experts,
        ranks=preset.ranks,
        device=device,
    )
    result: list[Routing] = []

    def routing() -> None:
        result[:] = [route(logits)]

    def whole() -> torch.Tensor:
        routing()
        weights, ids, _ = result[0]
        # the dispatcher's map: rank 0 holds the first experts, -1 is someone else's
        if preset.ranks > 1:
            ids = torch.where(ids < preset.local_experts, ids, -1)
        return layer.run(x, weights, ids)

    return kind, Turn(capture(whole, device), capture(routing, device), result)


def _row(
    label: str, batch: int, turn: Turn, vanilla: Turn | None, memory_us: float
) -> dict[str, Any]:
    latency, routing = Spread.of(turn.seconds), Spread.of(turn.routing_seconds)
    local = fmean(ranks[0] for ranks in turn.experts)
    row = {
        "policy": label,
        "batch": batch,
        "unique_experts": local,
        "unique_experts_all_ranks": fmean(sum(ranks) for ranks in turn.experts),
        "unique_experts_busiest_rank": fmean(max(ranks) for ranks in turn.experts),
        "latency_us": latency.median * US,
        "latency_us_quartiles": [latency.lower * US, latency.upper * US],
        "floor_us": local * memory_us,
        "routing_us": routing.median * US,
        "routing_us_quartiles": [routing.lower * US, routing.upper * US],
        "routing_share": (
            Spread.of(
                [
                    alone / whole
                    for alone, whole in zip(turn.routing_seconds, turn.seconds, strict=True)
                ]
            ).median
        ),
        "over_vanilla": None,
        "over_vanilla_quartiles": None,
    }
    if vanilla is not None:
        ratio = Spread.of(
            [ours / theirs for ours, theirs in zip(turn.seconds, vanilla.seconds, strict=True)]
        )
        row |= {"over_vanilla": ratio.median, "over_vanilla_quartiles": [ratio.lower, ratio.upper]}
    return row


def _fit(batch: int, line: Line | None, memory_us: float) -> dict[str, Any]:
    facts = {"batch": batch, "memory_us_per_expert": memory_us}
    if line is None:
        return facts | {"slope_us": None, "intercept_us": None, "r2": None}
    return facts | {"slope_us": line.slope, "intercept_us": line.intercept, "r2": line.r2}


def _line_of_rows(rows: list[dict[str, Any]], batch: int) -> Line | None:
    """Latency against T at one batch size, a point each policy."""
    points = [row for row in rows if row["batch"] == batch and _takes_k(row["policy"])]
    return fit([row["unique_experts"] for row in points], [row["latency_us"] for row in points])


def _line_of_turns(turns: dict[str, Turn]) -> Line | None:
    """Latency against T, a point each turn: one of many ranks reads few experts, and another number
    of experts in each turn."""
    seen = [turn for label, turn in turns.items() if _takes_k(label)]
    experts = [ranks[0] for turn in seen for ranks in turn.experts]
    return fit(experts, [seconds * US for turn in seen for seconds in turn.seconds])


def _takes_k(label: str) -> bool:
    """Pruned tokens compute less, so those lie on a line of their own."""
    return not label.startswith("pruned")


def _beside_paper(
    rows: list[dict[str, Any]], preset: Preset, line: Line | None
) -> list[dict[str, Any]]:
    """Our rows at the paper's batch size beside its own, and what our line says at its T.

    The line is one of this device's experts, so there is one only where the paper measured the
    layer."""
    published = preset.published
    table = []
    for k0 in sorted(published.experts):
        label = "vanilla" if k0 == paper.VANILLA else f"oea:{k0}"
        row = next(
            (row for row in rows if row["policy"] == label and row["batch"] == paper.BATCH), None
        )
        if row is None:
            continue
        at_their_t = None
        if line is not None:
            at_their_t = line.at(published.experts[k0]) / line.at(published.experts[paper.VANILLA])
        table.append(
            {
                "policy": label,
                "unique_experts": row["unique_experts_all_ranks"],
                "paper_experts": published.experts[k0],
                "over_vanilla": row["over_vanilla"],
                "over_vanilla_at_paper_experts": at_their_t,
                "paper_over_vanilla": published.relative[k0] if preset.comparable else None,
            }
        )
    return table
