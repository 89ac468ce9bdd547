"""All faults: those that a server has to survive, on one server; then those it may end by, each on
its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import NamedTuple

from rich.console import Console

from loadtest.chaos import (
    bodies,
    connections,
    controllers,
    crowds,
    departures,
    fatal,
    folders,
    idle,
    limits,
    metric_files,
    networks,
    not_numbers,
    operators,
    orphans,
    ranks,
    restarts,
    shared_memory,
    signals,
    stalls,
    steering,
    surroundings,
    weights,
)
from loadtest.chaos.arena import ADMIN_KEY, KEY, Arena, server
from loadtest.chaos.outcome import BROKE, Outcome, Seen


class Shared(NamedTuple):
    """A fault on the shared server."""

    name: str
    run: Callable[[Arena], Awaitable[Seen]]
    alone: bool = False


SHARED = {
    "malformed": Shared("malformed JSON", bodies.malformed),
    "types": Shared("wrong types and bounds", bodies.wrong_types),
    "huge": Shared("huge prompts", bodies.huge_prompts),
    "unknown": Shared("unknown fields", bodies.unknown_fields),
    "unicode": Shared("corners of Unicode", bodies.unicode_edges),
    "slow": Shared("slow readers", connections.slow_readers),
    "half-open": Shared("half-open connections", connections.half_open),
    "storm": Shared("a storm of cancels", connections.cancel_storm),
    "flapping": Shared("config flapping", steering.flapping),
    "policies": Shared("policy flapping", steering.policy_flapping, alone=True),
    "keys": Shared("wrong keys", steering.wrong_keys),
    "scrapes": Shared("/metrics scraped hard", connections.hard_scrapes),
    "idle": Shared("thousands of idle connections", idle.idle_connections),
    "prefill": Shared("clients gone in a long prefill", departures.in_a_prefill),
    "operators": Shared("two operators", operators.two_operators),
}
OWN: dict[str, Callable[[], Awaitable[Outcome]]] = {
    "sigterm": fatal.sigterm,
    "scheduler": fatal.killed_scheduler,
    "detokenizer": fatal.killed_detokenizer,
    "rank": fatal.killed_rank,
    "disk": surroundings.full_disk,
    "clock": surroundings.clock_jumps,
    "crowd": crowds.saturation,
    "stall": stalls.stalled_scheduler,
    "stopped-rank": stalls.stopped_rank,
    "oom": orphans.killed_launcher,
    "worker": orphans.killed_worker,
    "rolling": restarts.rolling,
    "signals": signals.every_phase,
    "truncated": weights.truncated,
    "tmp": folders.temporary,
    "caches": folders.caches,
    "metrics-ro": folders.metrics,
    "shm-start": shared_memory.full_at_start,
    "shm": shared_memory.full_after,
    "proxies": networks.proxies,
    "ipv6": networks.ipv6,
    "ipv6-any": networks.ipv6_any,
    "files": metric_files.foreign_files,
    "nofile": limits.few_files,
    "nproc": limits.few_processes,
    "nan-router": not_numbers.router,
    "nan-head": not_numbers.head,
    "draft-rank": partial(ranks.killed, ranks.DRAFTS),
    "draft-cancels": partial(ranks.cancels, ranks.DRAFTS),
    "draft-changes": partial(ranks.changes, ranks.DRAFTS),
    "dp-rank": partial(ranks.killed, ranks.DP),
    "dp-cancels": partial(ranks.cancels, ranks.DP),
    "dp-changes": partial(ranks.changes, ranks.DP),
    "worker-signals": signals.among_workers,
    "controller": controllers.blinded,
}


def run(names: Sequence[str], console: Console) -> list[Outcome]:
    """Let the named faults happen, all if none is named, in the order of the tables above."""
    return asyncio.run(
        _run([name for name in (*SHARED, *OWN) if not names or name in names], console)
    )


async def _run(names: list[str], console: Console) -> list[Outcome]:
    outcomes: list[Outcome] = []

    def keep(outcome: Outcome) -> None:
        outcomes.append(outcome)
        console.print(
            f"{outcome.verdict:7} {outcome.fault} ({outcome.seconds:.1f} s): {outcome.client_saw}",
            markup=False,
        )
        for line in outcome.why:
            console.print(f"        {line}", markup=False)

    shared = [SHARED[name] for name in names if name in SHARED]
    if shared:
        with server("--api-key", KEY, "--admin-api-key", ADMIN_KEY) as running:
            arena = Arena(running)
            await arena.learn()
            for fault in shared:
                keep(await arena.bear(fault.name, fault.run, fault.alone))
    for name in names:
        if name in OWN:
            keep(await _own(name))
    return outcomes


async def _own(name: str) -> Outcome:
    """A fault on a server of its own; a server that does not start does not end the others'
    turns."""
    try:
        return await OWN[name]()
    except RuntimeError as error:
        return Outcome(
            name,
            "no server",
            "–",
            "did not start",
            "–",
            BROKE,
            (str(error).splitlines()[-1][:200],),
        )
