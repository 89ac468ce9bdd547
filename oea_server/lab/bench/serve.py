"""`bench serve`: one live server, its policy switched between rounds, so that drift cancels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from oea_server.client.remote import Remote
from oea_server.lab.bench.bandwidth import Reader
from oea_server.lab.bench.drafts import Drafts, forget, passes, verified
from oea_server.lab.bench.load import play, repetitive
from oea_server.lab.bench.rounds import Rounds
from oea_server.lab.bench.timing import laps, shown_turns
from oea_server.lab.records.stats import Spread, percentiles
from oea_server.routing import Policy
from oea_server.routing.schedule import BY_BATCH

US, MS = 1e6, 1e3


def measure(
    server: Remote,
    batches: Sequence[int],
    policies: Mapping[str, Policy],
    *,
    tokens: int,
    repeats: int,
    seed: int,
    reader: Reader,
    bytes_per_expert: int,
    layers: int,
    model: str,
    drafts: Drafts | None = None,
) -> dict[str, Any]:
    """Decode at fixed concurrency, every policy in every repetition, in turn.

    Args:
        bytes_per_expert: of one expert's weights in one layer.
        layers: MoE layers of the model.
        drafts: of speculative decoding, if the server verifies any: then its caches are emptied
            before each round, and all rounds ask the same.
    """
    found = server.config()["settings"]
    reads: list[float] = []
    rounds: dict[int, dict[str, Rounds]] = {}
    try:
        for batch in batches:
            mine = rounds[batch] = {label: Rounds() for label in policies}
            for repetition, order in shown_turns(
                list(policies), repeats, f"{batch:3} requests at once"
            ):
                reads += laps(reader.device, [reader.read])
                for label in order:
                    kept = mine[label] if repetition >= 0 else Rounds()
                    _round(server, policies[label], batch, tokens, kept, drafts is not None)
    finally:  # it may be somebody's server
        server.steer(
            policy=found["policy"], **{name: found[name] for name in (*BY_BATCH, "draft_k0")}
        )
    bandwidth = reader.facts(reads)
    memory_us = layers * bytes_per_expert / (bandwidth["gb_per_s"] * 1e9) * US
    return {
        "benchmark": "serve",
        "model": {"name": model, "layers": layers, "bytes_per_expert": bytes_per_expert},
        "server": found,
        "tokens": tokens,
        "repeats": repeats,
        "seed": seed,
        "bandwidth": bandwidth,
        **({"drafts": drafts._asdict()} if drafts else {}),
        "rows": [
            _row(label, batch, each, mine.get("vanilla"), memory_us)
            for batch, mine in rounds.items()
            for label, each in mine.items()
        ],
    }


def _round(
    server: Remote, policy: Policy, batch: int, tokens: int, rounds: Rounds, verifies: bool
) -> None:
    named = {
        "k0": str(policy.k0),
        "share": str(policy.share or 0),
        "mix": str(policy.mix),
        "draft_k0": policy.draft_k0,
    }
    server.steer(policy=policy.name, **({} if policy.k0 is None else named))
    if verifies:  # or this round's drafts would be guessed from what the rounds before have said
        forget(server)
    before, counted = server.settled_metrics(), passes(server) if verifies else 0.0
    rounds.loads.append(
        play(server.url, batch, tokens, server.key, repetitive if verifies else None)
    )
    after = server.settled_metrics()
    gained = {name: after[name] - before.get(name, 0.0) for name in after}
    if verifies:
        rounds.accepted.append(batch * (tokens - 1) / (passes(server) - counted))
    rounds.experts.append(gained["oea_unique_experts_sum"] / gained["oea_unique_experts_count"])
    rounds.batch.append(gained["oea_decode_batch_size_sum"] / gained["oea_decode_batch_size_count"])
    rounds.step_seconds.append(
        gained["oea_decode_step_seconds_sum"] / gained["oea_decode_step_seconds_count"]
    )
    rounds.mass_kept.append(after["oea_router_mass_kept"])


def _row(
    label: str, batch: int, rounds: Rounds, vanilla: Rounds | None, memory_us: float
) -> dict[str, Any]:
    step, tpot = Spread.of(rounds.step_seconds), Spread.of(rounds.tpot())
    speed = Spread.of([load.tokens_per_second for load in rounds.loads])
    gaps = percentiles([gap for load in rounds.loads for gap in load.itl], 50, 99)
    experts = Spread.of(rounds.experts).median
    row = {
        "policy": label,
        "batch": batch,
        "tokens_in_a_step": Spread.of(rounds.batch).median,
        "unique_experts": experts,
        "mass_kept": Spread.of(rounds.mass_kept).median,
        "latency_us": step.median * US,
        "latency_us_quartiles": [step.lower * US, step.upper * US],
        "floor_us": experts * memory_us,
        "tpot_ms": tpot.median * MS,
        "tpot_ms_quartiles": [tpot.lower * MS, tpot.upper * MS],
        "itl_p50_ms": gaps[0] * MS,
        "itl_p99_ms": gaps[1] * MS,
        "ttft_ms": Spread.of([each for load in rounds.loads for each in load.ttft]).median * MS,
        "tokens_per_s": speed.median,
        "tokens_per_s_quartiles": [speed.lower, speed.upper],
        "tpot_over_vanilla": None,
        "tpot_over_vanilla_quartiles": None,
    }
    if vanilla is not None:
        ratio = Spread.of(
            [ours / theirs for ours, theirs in zip(rounds.tpot(), vanilla.tpot(), strict=True)]
        )
        row |= {
            "tpot_over_vanilla": ratio.median,
            "tpot_over_vanilla_quartiles": [ratio.lower, ratio.upper],
        }
    return row | (verified(rounds, vanilla) if rounds.accepted else {})
