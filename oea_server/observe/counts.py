"""Snapshots of all schedulers as one set of counts, and what they mean."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from oea_server.observe import parts
from oea_server.observe.parts import Counts
from oea_server.observe.snapshot import Snapshot
from oea_server.routing.tally import REJECTED_EXPERTS


@dataclass(frozen=True)
class Totals:
    """What steps woke, by layer, over some span of time."""

    layers: list[int]
    ranks: int
    expert_bytes: Counts
    """[layers]"""
    steps: int
    step_tokens: int
    step_seconds: float
    step_requests: int
    bypassed: Counter[str]
    tally: Counts
    """[layers, 2 + 4 (N + 1) + 4], as `oea_server.routing.tally.Tally.data`."""
    shadow: Counts
    tiers: Mapping[str, tuple[int, int, int]] = field(default_factory=dict)
    """Of each tier: tokens that were looked at, their mass in units of 1 / MASS_UNIT, broken
    promises."""

    def since(self, before: Self | None) -> Totals:
        """What came after `before`; everything where counting began anew, or with other layers (a
        stage that came up later)."""
        if before is None or not self._follows(before):
            return self
        return Totals(
            self.layers,
            self.ranks,
            self.expert_bytes,
            self.steps - before.steps,
            self.step_tokens - before.step_tokens,
            self.step_seconds - before.step_seconds,
            self.step_requests - before.step_requests,
            self.bypassed - before.bypassed,
            self.tally - before.tally,
            self.shadow - before.shadow,
            {tier: less(mine, before.tiers.get(tier)) for tier, mine in self.tiers.items()},
        )

    def _follows(self, before: Self) -> bool:
        """Whether the totals go on from `before`: counts only ever grow, so fewer are those of a
        restart."""
        return (
            (before.layers, before.tally.shape, before.shadow.shape)
            == (self.layers, self.tally.shape, self.shadow.shape)
            and before.steps <= self.steps
            and before.step_tokens <= self.step_tokens
            and before.step_seconds <= self.step_seconds
            and before.step_requests <= self.step_requests
            and before.bypassed <= self.bypassed
            and bool((before.tally <= self.tally).all() and (before.shadow <= self.shadow).all())
        )


def together(snapshots: Iterable[Snapshot]) -> Totals | None:
    """All schedulers' counts: replicas add up, the stages of a pipeline bring layers of their
    own."""
    tallies: dict[int, tuple[Counts, Counts, int]] = {}
    steps, tokens, seconds, requests, ranks = 0, 0, 0.0, 0, 1
    bypassed: Counter[str] = Counter()
    tiers: dict[str, tuple[int, int, int]] = {}
    for each in snapshots:
        for tier, counted in each.tiers.items():
            tokens_of, mass, broken = (
                a + b for a, b in zip(tiers.get(tier, (0, 0, 0)), counted, strict=True)
            )
            tiers[tier] = tokens_of, mass, broken
        steps, tokens, seconds = (
            steps + each.steps,
            tokens + each.step_tokens,
            seconds + each.step_seconds,
        )
        requests += each.step_requests
        bypassed.update(each.bypassed)
        ranks = each.ranks
        for row, layer in enumerate(each.layers):
            tally, shadow, size = each.tally[row], each.shadow[row], each.expert_bytes[row]
            if layer in tallies:
                tally, shadow = tally + tallies[layer][0], shadow + tallies[layer][1]
            tallies[layer] = tally, shadow, size
    if not tallies:
        return None
    layers = sorted(tallies)
    data, shadows, sizes = zip(*(tallies[layer] for layer in layers), strict=True)
    stacked = np.stack(data), np.stack(shadows)
    return Totals(
        layers, ranks, np.array(sizes), steps, tokens, seconds, requests, bypassed, *stacked, tiers
    )


def less(after: tuple[int, int, int], before: tuple[int, int, int] | None) -> tuple[int, int, int]:
    """What came after `before`."""
    tokens, mass, broken = (max(0, a - b) for a, b in zip(after, before or (0, 0, 0), strict=True))
    return tokens, mass, broken


def summary(counted: Totals) -> dict[str, Any]:
    """What a span of time was like; means are None where there was nothing."""
    unique, busiest, vanilla, vanilla_busiest, sums, verified = parts.split(counted.tally)
    tokens, assignments, piggybacked, _ = sums.sum(axis=0).tolist()
    accepted, rejected = parts.accepted_rows(verified), int(verified[:, REJECTED_EXPERTS].sum())
    ranks = counted.ranks
    return {
        "steps": counted.steps,
        "tokens_per_step": _ratio(counted.step_tokens, counted.steps),
        "requests_per_step": _ratio(counted.step_requests, counted.steps),
        "step_ms": _ratio(counted.step_seconds * 1e3, counted.steps),
        "unique_experts": mean(unique),
        "vanilla_unique_experts": mean(vanilla),
        "busiest_rank": mean(busiest) if ranks > 1 else None,
        "vanilla_busiest_rank": mean(vanilla_busiest) if ranks > 1 else None,
        "rank_spread": spread(busiest, unique, ranks) if ranks > 1 else None,
        "vanilla_rank_spread": spread(vanilla_busiest, vanilla, ranks) if ranks > 1 else None,
        "mass_kept": mass_kept(counted.tally),
        # None without drafts
        "accepted_length": _ratio(accepted, counted.step_requests) if accepted else None,
        "rejected_experts": _ratio(rejected, int(unique.sum())) if accepted else None,
        "tokens": tokens,
        "assignments": assignments,
        "piggybacked": piggybacked,
        "bytes_read": _bytes(counted, unique),
        "bytes_saved": _bytes(counted, vanilla) - _bytes(counted, unique),
    }


def by_layer(counted: Totals) -> list[dict[str, Any]]:
    """`summary` of each MoE layer, without what belongs to steps."""
    unique, busiest, vanilla, vanilla_busiest, sums, _ = parts.split(counted.tally)
    tokens, assignments, piggybacked, _ = sums.T.tolist()
    read, would = (parts.experts(each) * counted.expert_bytes for each in (unique, vanilla))
    columns = {
        "layer": counted.layers,
        "unique_experts": means_by_layer(unique),
        "vanilla_unique_experts": means_by_layer(vanilla),
        "busiest_rank": means_by_layer(busiest),  # None on one rank, where it is not counted
        "vanilla_busiest_rank": means_by_layer(vanilla_busiest),
        "mass_kept": [
            None if (kept := parts.mass_kept(mine)) is None else round(kept, 4) for mine in sums
        ],
        "tokens": tokens,
        "assignments": assignments,
        "piggybacked": piggybacked,
        "bytes_read": read.tolist(),
        "bytes_saved": (would - read).tolist(),
    }
    return [
        dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
    ]


def prediction(counted: Totals) -> dict[str, Any]:
    """What the shadow policy would have done in its steps."""
    unique, busiest, vanilla, vanilla_busiest, *_ = parts.split(counted.shadow)
    would = _bytes(counted, vanilla)
    saved = would - _bytes(counted, unique)
    return {
        "unique_experts": mean(unique),
        "vanilla_unique_experts": mean(vanilla),
        "busiest_rank": mean(busiest) if busiest.any() else None,
        "vanilla_busiest_rank": mean(vanilla_busiest) if vanilla_busiest.any() else None,
        "mass_kept": mass_kept(counted.shadow),
        "bytes_saved": saved,
        "bytes_saved_share": _ratio(saved, would),
        "steps": int(unique.sum()) // len(counted.layers),
    }


def distribution(histogram: Counts) -> dict[str, int]:
    """[layers, N + 1] -> experts: how often, over all layers."""
    total = histogram.sum(axis=0)
    return {str(value): int(total[value]) for value in np.flatnonzero(total)}


def mean(histogram: Counts) -> float | None:
    """Mean of the observations in [layers, N + 1]."""
    return _ratio(float(parts.experts(histogram).sum()), int(histogram.sum()))


def means_by_layer(histogram: Counts) -> list[float | None]:
    """Mean of the observations of each layer."""
    pairs = zip(parts.experts(histogram).tolist(), histogram.sum(axis=-1).tolist(), strict=True)
    return [_ratio(total, times) for total, times in pairs]


def spread(busiest: Counts, unique: Counts, ranks: int) -> float | None:
    """What the busiest rank reads over an even share of all that is read: 1 where no rank waits for
    another."""
    return _ratio(float(parts.experts(busiest).sum()) * ranks, int(parts.experts(unique).sum()))


def mass_kept(tally: Counts) -> float | None:
    """Mean share of vanilla's router mass that the chosen experts held, over tokens and layers."""
    kept = parts.mass_kept(parts.split(tally).sums.sum(axis=0))
    return None if kept is None else round(kept, 4)


def _bytes(counted: Totals, histogram: Counts) -> int:
    return int(parts.experts(histogram) @ counted.expert_bytes)


def _ratio(part: float, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None
