"""Which forward passes are decode steps, and how many of their rows are tokens.

Seams: AROUND `ModelRunner.forward` (every pass, before a graph is replayed or padded) and AROUND
`DecodeCudaGraphRunner.capture_one_shape` (graph capture calls the model without
`ModelRunner.forward`). In a patched SGLang both call `engine.patched`; the hooks stay, the first
for the guard, the second for the rows of each request in a graph."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

from oea_server.engine import (
    drafts,
    gathered,
    guard,
    halves,
    plugin,
    runtime,
    tier_counts,
    warmup,
    wish_gather,
    wishers,
)
from oea_server.engine.drafts import NONE, Drafts
from oea_server.engine.runtime import Runtime
from oea_server.engine.step import Step


def around_forward(
    original: Callable[..., Any], self: Any, forward_batch: Any, *args: Any, **kwargs: Any
) -> Any:
    """Mark pure decode batches and those that verify drafts; prefill, mixed and idle take SGLang's
    own path."""
    now = runtime.current
    if now is None or self.is_draft_worker:
        return original(self, forward_batch, *args, **kwargs)
    with guard.watching(now, forward_batch):
        if plugin.patched:  # it calls `running` from inside
            return original(self, forward_batch, *args, **kwargs)
        rids, of = forward_batch.rids or (), drafts.of(forward_batch)
        with running(now, forward_batch.forward_mode, forward_batch.batch_size, rids, of):
            return original(self, forward_batch, *args, **kwargs)


def around_capture(
    original: Callable[..., Any], self: Any, size: int, *args: Any, **kwargs: Any
) -> Any:
    """Capture decode graphs with the policy inside; the real rows stay a number on the device."""
    now = runtime.current
    if now is None or self.model_runner.is_draft_worker:
        return original(self, size, *args, **kwargs)
    now.rows.captured = drafts.of_graph(self)
    if plugin.patched:  # it calls `capturing` from inside
        return original(self, size, *args, **kwargs)
    with capturing(now, self.capture_forward_mode, size, now.rows.captured):
        return original(self, size, *args, **kwargs)


def running(
    now: Runtime, mode: Any, batch: int, request_ids: Sequence[str], of: Drafts = NONE
) -> AbstractContextManager[None]:
    """Entered around a forward pass of `batch` requests: its layers belong to a step of ours if it
    is a decode step."""
    counted = is_traffic(request_ids)
    if now.rows.ranks is not None and now.rows.forward_batch is not None:
        counted = counted and gathered.speaks(now.rows.ranks, now.rows.forward_batch)
        step = gathered.step_of(now.rows.ranks, now.rows.forward_batch, of, counted=counted)
    else:
        step = Step(batch * of.per_request, counted, False, *of) if drafts.is_step(mode) else None
    if step is not None:
        if both := now.rows.halves(step):
            step = replace(step, halves=both)
        decoding = now.decoding(step := wishing(now, step, request_ids))
        if not wishers.tiered or not (tiers := wishers.tiers_of(request_ids)):
            return decoding
        return tier_counts.counts.around(now, step, tiers, decoding)
    if counted:
        now.bypassed["mixed" if mode.is_decode() else kind_of(mode)] += 1
    return nullcontext()


def wishing(now: Runtime, step: Step, request_ids: Sequence[str]) -> Step:
    """The step with what its requests ask for themselves; the same if none does."""
    if not wishers.asking and not wish_gather.asked:
        return step
    asked = wishers.of(request_ids, as_it_is=now.steering.settings.wish_floor is not None)
    try:
        if step.of_ranks and now.rows.ranks is not None:
            asked = wish_gather.of_step(step, asked, now.rows.ranks.own)
        elif asked and len(asked) != step.requests:
            raise ValueError(
                f"a decode step of {step.requests} requests has {len(asked)} ids: whose wishes it"
                " is to keep"
            )
    except ValueError as error:
        guard.end(str(error))
    return replace(step, asked=asked) if asked else step


def capturing(
    now: Runtime, mode: Any, size: int, of: Drafts = NONE
) -> AbstractContextManager[None]:
    """Entered around the capture of a graph for `size` requests, per rank where rows of several
    ranks come together."""
    if not drafts.is_step(mode):
        return nullcontext()
    rows = size * of.per_request
    of_ranks = (
        (rows,) * now.rows.ranks.ranks
        if now.rows.ranks is not None and now.rows.ranks.together
        else ()
    )
    both = halves.of_step(halves.cut(rows, of.per_request), rows) if now.rows.halved else ()
    return now.decoding(Step(sum(of_ranks) or rows, False, True, *of, of_ranks, halves=both))


def kind_of(mode: Any) -> str:
    """What a forward pass that is no decode step is, as a reason why routing is not ours in it."""
    return {"EXTEND": "prefill", "MIXED": "mixed"}.get(mode.name, "other")


def is_traffic(request_ids: Iterable[str]) -> bool:
    """Whether any request of the batch is a user's: not a health check, not the server's
    warm-up."""
    return any(not rid.startswith(warmup.OWN) for rid in request_ids)
