"""`bench serve --tiers`: what exact requests cost everybody, by their share of all that decode at
once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from oea_server.client.remote import Remote
from oea_server.lab.bench.bandwidth import Reader
from oea_server.lab.bench.load import Ask, Load, never_alike, play
from oea_server.lab.bench.timing import laps, shown_turns
from oea_server.lab.records.stats import Spread

US, MS = 1e6, 1e3
SHARES = (0, 5, 25, 50, 100)
"""Percent of the requests that are exact."""
EXACT, AUTO, VANILLA = "exact", "auto", "vanilla"
FLAGS = ("--oea-tiers", f"{EXACT}: exact; {AUTO}: auto", "--oea-default-tier", AUTO)
"""Of a server of our own."""


@dataclass(slots=True)
class Rounds:
    """What one share did, round by round."""

    loads: list[Load] = field(default_factory=list)
    experts: list[float] = field(default_factory=list)
    step_seconds: list[float] = field(default_factory=list)
    mass_kept: dict[str, list[float]] = field(default_factory=lambda: {EXACT: [], AUTO: []})

    def tpot(self, chats: slice) -> list[float]:
        """Seconds per token, the mean over some chats of each round."""
        return [sum(load.tpot[chats]) / len(load.tpot[chats]) for load in self.loads]


def measure(
    server: Remote,
    chats: int,
    k0: int,
    *,
    tokens: int,
    repeats: int,
    reader: Reader,
    bytes_per_expert: int,
    layers: int,
    model: str,
) -> dict[str, Any]:
    """Decode so many chats at once, of which each share in turn is exact and the others are
    guaranteed k0. For comparison decode all of the chats vanilla."""
    found = server.config()["settings"]
    reads: list[float] = []
    exact = {str(share): share * chats // 100 for share in SHARES}
    rounds = {label: Rounds() for label in (VANILLA, *exact)}
    try:
        for repetition, order in shown_turns(list(rounds), repeats, f"{chats} chats"):
            reads += laps(reader.device, [reader.read])
            for label in order:
                kept = rounds[label] if repetition >= 0 else Rounds()
                server.steer(policy="vanilla" if label == VANILLA else "oea", k0=str(k0))
                _round(server, chats, exact.get(label, 0), tokens, kept)
    finally:
        server.steer(policy=found["policy"], k0=found["k0"])
    bandwidth = reader.facts(reads)
    memory_us = layers * bytes_per_expert / (bandwidth["gb_per_s"] * 1e9) * US
    return {
        "benchmark": "tiers",
        "model": {"name": model, "layers": layers, "bytes_per_expert": bytes_per_expert},
        "server": found,
        "chats": chats,
        "k0": k0,
        "tokens": tokens,
        "repeats": repeats,
        "seed": 0,
        "bandwidth": bandwidth,
        "rows": [
            _row(label, exact.get(label, 0), chats, each, rounds[VANILLA], memory_us)
            for label, each in rounds.items()
        ],
    }


def _round(server: Remote, chats: int, exact: int, tokens: int, rounds: Rounds) -> None:
    before, of_tiers = server.settled_metrics(), tier_sums(server)

    def asks(place: int) -> Ask:
        return never_alike(place)._replace(tier=EXACT if place < exact else AUTO)

    rounds.loads.append(play(server.url, chats, tokens, server.key, asks))
    after, now = server.settled_metrics(), tier_sums(server)
    gained = {name: after[name] - before.get(name, 0.0) for name in after}
    rounds.experts.append(gained["oea_unique_experts_sum"] / gained["oea_unique_experts_count"])
    rounds.step_seconds.append(
        gained["oea_decode_step_seconds_sum"] / gained["oea_decode_step_seconds_count"]
    )
    for tier, kept in rounds.mass_kept.items():
        rows, mass = (
            b - a
            for a, b in zip(of_tiers.get(tier, (0.0, 0.0)), now.get(tier, (0.0, 0.0)), strict=True)
        )
        if rows:
            kept.append(mass / rows)


def tier_sums(server: Remote) -> Mapping[str, tuple[float, float]]:
    """For each tier: its tokens that were looked at so far, and the mass that they kept."""
    names = ("oea_tier_sampled_tokens_total", "oea_tier_kept_router_mass_total")
    sums: dict[str, dict[str, float]] = {}
    for sample in server.samples():
        if sample.name in names:
            sums.setdefault(sample.labels["tier"], {})[sample.name] = sample.value
    return {tier: (of[names[0]], of[names[1]]) for tier, of in sums.items()}


def _row(
    label: str, exact: int, chats: int, rounds: Rounds, vanilla: Rounds, memory_us: float
) -> dict[str, Any]:
    step, experts = Spread.of(rounds.step_seconds), Spread.of(rounds.experts).median
    everybody = slice(0, chats)
    ratio = Spread.of(
        [a / b for a, b in zip(rounds.tpot(everybody), vanilla.tpot(everybody), strict=True)]
    )
    speed = Spread.of([load.tokens_per_second for load in rounds.loads])
    return {
        "share": label,
        "exact_chats": exact,
        "unique_experts": experts,
        "latency_us": step.median * US,
        "latency_us_quartiles": [step.lower * US, step.upper * US],
        "floor_us": experts * memory_us,
        "tpot_ms": {
            EXACT: _milliseconds(rounds, slice(0, exact)),
            AUTO: _milliseconds(rounds, slice(exact, chats)),
        },
        "mass_kept": {
            tier: Spread.of(kept).median if kept else None
            for tier, kept in rounds.mass_kept.items()
        },
        "tpot_over_vanilla": ratio.median,
        "tpot_over_vanilla_quartiles": [ratio.lower, ratio.upper],
        "tokens_per_s": speed.median,
    }


def _milliseconds(rounds: Rounds, chats: slice) -> Sequence[float] | None:
    """Median and quartiles of the time per token of some chats; None of none."""
    if chats.start == chats.stop:
        return None
    spread = Spread.of(rounds.tpot(chats))
    return [spread.median * MS, spread.lower * MS, spread.upper * MS]
