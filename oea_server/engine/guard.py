"""Ends the process where the rows that a router sees are not the decode step's.

Two looks, because in a replayed CUDA graph no layer runs Python: at each step's `ForwardBatch`
before anything runs, and at the logits of each layer that does run Python. What no table of
`engine.options` foresees is ended here, before a token of it is answered.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from oea_server.engine import drafts, gathered
from oea_server.engine.gathered import Ranks
from oea_server.engine.refuse import refuse
from oea_server.engine.runtime import Runtime
from oea_server.engine.step import Step

REPORT = "report it with the command line; pip uninstall oea-server leaves SGLang as it is"
"""What is left to do: under policy vanilla as well, a step of unknown rows is ended."""


@contextmanager
def watching(now: Runtime, forward_batch: Any) -> Iterator[None]:
    """Entered around `ModelRunner.forward`, before a step is padded or a graph replayed."""
    mode = forward_batch.forward_mode
    if drafts.is_step(mode) or (now.routers and now.rows.ranks is not None):
        if now.routers and (problem := problem_of(forward_batch, now.rows.ranks)):
            end(problem)
        now.rows.forward_batch = forward_batch
    try:
        yield
    finally:
        now.rows.forward_batch = None


def problem_of(forward_batch: Any, here: Ranks | None = None) -> str | None:
    """Why a decode step is not one row per request of this rank, or one and its drafts, in order;
    None if it is.

    Where ranks have batches of their own (`here`), also why nobody knows what the others have.

    Reads `batch_size`, `input_ids` or `input_embeds`, and `global_num_tokens_cpu`: the tokens of
    each rank whose rows SGLang gathers into one batch for the experts, None where it does not. One
    entry means that this rank's rows alone are padded (`--moe-dense-tp-size`), behind its tokens.
    """
    requests, each = int(forward_batch.batch_size), drafts.of(forward_batch).per_request
    rows = rows_of(forward_batch)
    if rows is not None and rows != requests * each and drafts.is_step(forward_batch.forward_mode):
        has = "one" if each == 1 else f"{each}, its drafts among them"
        return (
            f"a decode step of {requests} requests has {rows} rows, where each request has {has};"
            f" {REPORT}"
        )
    if here is not None:
        why = gathered.problem_of(here, forward_batch, requests * each)
        return None if why is None else f"{why}; {REPORT}"
    counts = getattr(forward_batch, "global_num_tokens_cpu", None)
    if counts is not None and [int(count) for count in counts] != [requests * each]:
        return (
            f"a decode step of {requests} requests is part of a batch of {sum(counts)} rows, those"
            f" of other ranks ({', '.join(str(int(count)) for count in counts)}), where a router"
            f" must see its own step's; {REPORT}"
        )
    return None


def rows_of(forward_batch: Any) -> int | None:
    """The rows that a batch has now, padding included; None if the batch does not say."""
    for name in ("input_embeds", "input_ids"):
        if (tokens := getattr(forward_batch, name, None)) is not None:
            return len(tokens)
    return None


def check(now: Runtime, rows: int) -> None:
    """End the process if a layer of the step that runs now got another number of rows than it may.

    While a graph is captured these are the graph's. Otherwise the step's own; or what SGLang itself
    has padded its batch to by now, behind them; or the size of the graph that it replays (only
    under `--debug-cuda-graph` do layers run Python then)."""
    step = now.step
    if step is None or now.rows.half is not None:  # which is known to have so many
        return
    if (rows == step.batch and not step.of_ranks) or rows in known(now, step):
        return
    what = "the capture of a graph of" if step.capturing else "a decode step of"
    end(
        f"a router got {rows} rows in {what} {step.batch}: nobody knows which of them are tokens;"
        f" {REPORT}"
    )


def known(now: Runtime, step: Step) -> set[int]:
    """The numbers of rows of which it is known which are tokens."""
    if step.of_ranks:
        return {sum(now.rows.slots(step))}
    if step.capturing:
        return {step.batch}
    padded = None if now.rows.forward_batch is None else rows_of(now.rows.forward_batch)
    # of ranks that route alone the longest decides which graph all replay
    graphs = (
        {now.graphs.rows_of(step.batch, step.per_request)}
        if now.rows.ranks is None
        else {
            size
            for size, each in now.graphs.sizes
            if each == step.per_request and size >= step.batch
        }
    )
    return {step.batch, *graphs, *([] if padded is None else [padded])}


def end(*problems: str, verb: str = "ending") -> NoReturn:
    """End the whole server from a scheduler process, the way SGLang's own scheduler does."""
    try:
        refuse(*problems, verb=verb)
    finally:
        os.kill(os.getppid(), signal.SIGQUIT)
