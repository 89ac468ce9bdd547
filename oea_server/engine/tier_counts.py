"""What the rows of each tier keep, step by step: their router mass, and whether they were
guaranteed what was promised.

From what the routing writes down of each row: the loop on a CPU where it is asked to, the launches
on a GPU anyway (`oea_server.routing.records`), of which every eighth step is looked at, by a few
small operators behind it on the same stream. A step in which no request has a tier is asked one
question."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache
from typing import Any

import torch

from oea_server.engine.runtime import Runtime
from oea_server.engine.step import Step
from oea_server.engine.wish import Carried
from oea_server.routing.policy import EXACT
from oea_server.routing.records import GUARANTEED, Records
from oea_server.routing.tally import ALL, MASS_UNIT, HostTally
from oea_server.tiers.table import MOST_NAMES, named

logger = logging.getLogger(__name__)

OF_NONE = MOST_NAMES + 1
"""Column of the requests without a tier, which is not read. Before it is the column of tiers that
came too late."""
EVERY = 8
"""Steps of which one is looked at on a GPU."""
PADDING = 64
ROUNDED = 8
"""Units by which the mass of all of a row's own experts may be short of 1: two sums of the same
numbers."""


class TierCounts:
    """Counted since the start, by tier."""

    def __init__(self) -> None:
        self._place: dict[str, int] = {}
        self._counts: torch.Tensor | None = None
        """[MOST_NAMES + 2, 3] int64: tokens, mass in units of 1 / MASS_UNIT, broken promises; one
        each token and layer. """
        self._steps = 0
        self._said = self._fresh = False

    def around(
        self,
        now: Runtime,
        step: Step,
        tiers: Sequence[Carried],
        inside: AbstractContextManager[None],
    ) -> AbstractContextManager[None]:
        """Entered in place of `inside`, the step itself, if it is looked at."""
        tally = now.tally
        self._steps += 1
        if tally is None or not now.reports or step.capturing:
            return inside
        if step.halves:
            if not self._said:
                self._said = True
                logger.warning("OEA: of steps that run as two halves nothing is known by tier")
            return inside
        if isinstance(tally, HostTally):
            return self._on_host(now, tally, step, tiers, inside)
        if (
            self._steps % EVERY
            or now.beyond(now.rows.padded(step), now.steering.facts.k)
            or not tally.data.is_cuda
        ):
            return inside
        return self._on_device(now, step, tiers, inside)

    @contextmanager
    def _on_host(
        self, now: Runtime, tally: HostTally, step: Step, tiers: Sequence[Carried], inside: Any
    ) -> Iterator[None]:
        with inside:
            tally.watch(room_for(now, step))
            try:
                yield
            finally:
                found = tally.watched()
        start, count = rows_of(now, step)
        kept, guaranteed = (
            torch.from_numpy(found[:, start : start + count, part]) for part in (0, 1)
        )
        self._add(now, step, tiers, kept, guaranteed)

    @contextmanager
    def _on_device(
        self, now: Runtime, step: Step, tiers: Sequence[Carried], inside: Any
    ) -> Iterator[None]:
        with inside:
            yield
        assert now.tally is not None
        if now.tally.records is not None:
            start, count = rows_of(now, step)
            self._add(now, step, tiers, *recorded(now.tally.records, start, count))

    def _add(
        self,
        now: Runtime,
        step: Step,
        tiers: Sequence[Carried],
        kept: torch.Tensor,
        guaranteed: torch.Tensor,
    ) -> None:
        if len(tiers) * step.per_request != kept.shape[1]:
            raise ValueError(
                f"{kept.shape[1]} rows of a step with the tiers of {len(tiers)} requests"
            )
        if self._counts is None:
            self._counts = torch.zeros(OF_NONE + 1, 3, dtype=torch.int64, device=kept.device)
        told = torch.tensor([self._told(each) for each in tiers], dtype=torch.int64)
        if kept.is_cuda:
            told = told.pin_memory().to(kept.device, non_blocking=True)
        place, promise = told.repeat_interleave(step.per_request, dim=0).unbind(1)
        ks = _ks(tuple(router.k for _, router in sorted(now.routers.items())), kept.device)
        short = guaranteed < torch.minimum(promise, ks)
        short |= (promise == EXACT) & (kept < MASS_UNIT - ROUNDED)
        layers = torch.full_like(place, kept.shape[0])
        self._counts.index_add_(0, place, torch.stack([layers, kept.sum(0), short.sum(0)], dim=1))
        self._fresh = True

    def _told(self, each: Carried) -> tuple[int, int]:
        if each.tier is None:
            return OF_NONE, 0
        return self._place.setdefault(named(each.tier, self._place), len(self._place)), each.promise

    def read(self) -> dict[str, tuple[int, int, int]] | None:
        """What was counted of each tier, None if nothing was since the last call; on the current
        stream, if it is on a GPU."""
        if not self._fresh or self._counts is None:
            return None
        self._fresh = False
        counts = self._counts.cpu().tolist()
        return {name: tuple(counts[place]) for name, place in list(self._place.items())}  # type: ignore[misc]


def room_for(now: Runtime, step: Step) -> int:
    """Rows that a router may get at most: SGLang pads those of ranks that come together to the
    longest, and to what their number divides."""
    longest = max(step.of_ranks, default=0)
    return max(step.batch, now.rows.padded(step), len(step.of_ranks) * (longest + PADDING))


def rows_of(now: Runtime, step: Step) -> tuple[int, int]:
    """Where this rank's own rows lie in what a router gets, and how many they are."""
    if not step.of_ranks or now.rows.ranks is None:
        return 0, step.batch
    own = now.rows.ranks.own
    return sum(now.rows.slots(step)[:own]), step.of_ranks[own]


def recorded(book: Records, start: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Of the step that was counted last, [layers, count] each: as `HostTally.watched`."""
    rows = slice(start, start + count)
    routed = (book.last != 0)[:, None]
    slots = book.rows[:, rows]
    whole = slots[..., 0] >= 0
    guaranteed = torch.where(whole, ((slots & GUARANTEED) != 0).sum(-1), 0)
    kept = torch.where(whole, book.kept[:, rows].long(), 0)
    return torch.where(routed, kept, MASS_UNIT), torch.where(routed, guaranteed, ALL)


@lru_cache(maxsize=8)
def _ks(ks: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """[layers, 1]: the top k of each."""
    return torch.tensor(ks, device=device)[:, None]


counts = TierCounts()
"""The process's counts by tier."""
