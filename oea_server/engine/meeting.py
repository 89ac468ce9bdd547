"""Where ranks tell each other what they go by: the store of torch's default process group.

Not a collective: a rank without our plug-in enters none of ours, and the others would wait for it
as long as SGLang waits for a dead one. In the store it is missed after WAIT."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch.distributed.distributed_c10d import PrefixStore, _get_default_store

WAIT = 40.0
"""Seconds that a rank waits for the others, from its own arrival. All have met when the process
group was made, which leaves building the model's modules: seconds. With those, a launch is refused
within a minute."""

FAREWELL = 5.0
"""Seconds that a rank stays for the others to read why it ends: with rank 0 goes the store."""

GAVE_UP = "gave up"

Answer = Mapping[str, Any]
"""What a rank says of itself; its "host" among it."""


class DisagreementError(Exception):
    """One line: where the ranks differ, or which of them did not answer."""


class World(NamedTuple):
    """The ranks of torch's default process group, as SGLang lays them out: stage by stage, node by
    node."""

    store: Any
    rank: int
    size: int
    width: int
    """Ranks of a pipeline stage."""
    nodes: int

    def first_of_stage(self, rank: int) -> int:
        """The first rank of the pipeline stage that `rank` is in."""
        return rank - rank % self.width

    def named(self, rank: int, answers: Mapping[int, Answer]) -> str:
        """A rank, its node and, if it answered, its host."""
        host = f", {answers[rank]['host']}" if rank in answers else ""
        return f"rank {rank} (node {rank * self.nodes // self.size}{host})"


def world() -> World | None:
    """The ranks that serve together with this one, None if it serves alone."""
    if not torch.distributed.is_initialized() or torch.distributed.get_world_size() == 1:
        return None
    from sglang.srt.runtime_context import get_parallel, get_server_args

    size = torch.distributed.get_world_size()
    nodes = get_server_args().nnodes
    return World(
        _get_default_store(), torch.distributed.get_rank(), size, get_parallel().tp_size, nodes
    )


def exchange(here: World, topic: str, answer: Answer, ranks: Sequence[int]) -> dict[int, Answer]:
    """The answers of all `ranks`, the process's own among them.

    Raises:
        DisagreementError: one of them did not answer, or has given up itself.
    """
    store = PrefixStore(f"oea/{topic}", here.store)
    answers: dict[int, Answer] = {}
    deadline, pause = time.monotonic() + WAIT, 0.0005
    try:
        store.set(str(here.rank), json.dumps(answer))
        # asked again and again, not waited for in the store: torch's watchdog uses the same
        # connection
        while not store.check([GAVE_UP]):
            for rank in ranks:
                if rank not in answers and store.check([str(rank)]):
                    answers[rank] = json.loads(store.get(str(rank)))
            missing = [rank for rank in ranks if rank not in answers]
            if not missing:
                return answers
            if time.monotonic() > deadline:
                store.set(GAVE_UP, silence(here, missing))
            time.sleep(pause)
            pause = min(2 * pause, 0.05)
        why = store.get(GAVE_UP).decode()
    except RuntimeError as error:  # what torch raises is one
        first, *_ = str(error).splitlines() or [""]
        raise DisagreementError(
            f"ranks cannot be compared, their store is gone: {first}; look at rank 0's log"
        ) from None
    take_leave(here, topic, answers)
    raise DisagreementError(why)


def take_leave(here: World, topic: str, ranks: Iterable[int]) -> None:
    """Stay until the other ranks have read what this one ends for, or for a while."""
    store = PrefixStore(f"oea/{topic}/read", here.store)
    deadline = time.monotonic() + FAREWELL
    try:
        store.set(str(here.rank), "")
        while time.monotonic() < deadline and not store.check([str(rank) for rank in ranks]):
            time.sleep(0.05)
    except RuntimeError:
        pass  # who kept it has read, and has gone


def forget(here: World, topic: str) -> None:
    """Take back what this rank said, so that the store does not grow."""
    PrefixStore(f"oea/{topic}", here.store).delete_key(str(here.rank))


def silence(here: World, ranks: Iterable[int]) -> str:
    """Which ranks did not answer, and what may be wrong with them."""
    who = ", ".join(here.named(rank, {}) for rank in ranks)
    return (
        f"{who} did not answer in {WAIT:.0f} s: is oea-server installed and allowed there"
        " (SGLANG_PLUGINS), and is it this version?"
    )
