"""A plug-in of the tests' servers: reports come ten times a second, and on request every rank
writes its steps down.

On the server's PYTHONPATH together with its .dist-info. With RECORDER_FOLDER set, each decode step
that is counted, or shared with other ranks, is a line there, one file per process: its batch, by
what each layer routed it, and whether a recount of the rows that are tokens comes to the same. With
ROUTED_FOLDER, a file per counted step: its rows, the requests that they are of, and the logits,
experts and weights of each layer that was routed by us; and beside it, of a step that verified
drafts, which rows were accepted. With FAULT_FILE, the router is broken as that file says
(`broken_router`)."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

INTERVAL = 0.1
"""Seconds between two reports: a test waits for two that are equal, some sixty times."""


def activate() -> None:
    """Wrap what is ours, in whichever process loads plug-ins."""
    report_often()
    if folder := os.environ.get("RECORDER_FOLDER"):
        record(Path(folder) / f"{os.getpid()}.jsonl")
    if folder := os.environ.get("ROUTED_FOLDER"):
        keep_routed(Path(folder))
    if file := os.environ.get("FAULT_FILE"):
        from broken_router import break_by  # type: ignore[import-not-found]

        break_by(Path(file))


def report_often() -> None:
    from oea_server.engine import start_reporting

    start = start_reporting.start

    def started(*of: Any) -> None:
        # not before: the launcher must not import prometheus_client, and the reporter does
        from oea_server.observe import reporter

        reporter.INTERVAL = INTERVAL
        start(*of)

    start_reporting.start = started  # type: ignore[assignment]


def record(path: Path) -> None:
    from oea_server.engine.runtime import Runtime

    decoding, is_vanilla, route = Runtime.decoding, Runtime.is_vanilla, Runtime.route
    layers: list[Any] = []

    @contextmanager
    def recorded(self: Runtime, step: Any) -> Iterator[None]:
        layers.clear()
        with decoding(self, step):
            yield
        if step.counted or step.of_ranks:
            with path.open("a") as file:
                said = {"batch": step.batch, "of_ranks": step.of_ranks, "layers": layers}
                file.write(json.dumps(said) + "\n")

    def recorded_is_vanilla(self: Runtime, router: Any) -> bool:
        vanilla = is_vanilla(self, router)
        layers.append([router.layer, f"{self.policy.name} {self.policy.k0}", None])
        return vanilla

    def recorded_route(self: Runtime, router: Any, logits: Any) -> Any:
        routing = route(self, router, logits)
        layers[-1][2] = zlib.crc32(routing.ids.numpy().tobytes())
        if self.step is not None and self.step.of_ranks:
            layers[-1].append(recounted(self, router, logits, routing))
        return routing

    def recounted(self: Runtime, router: Any, logits: Any, routing: Any) -> bool:
        """Whether `route` comes to the same from the tokens' rows alone, those of each rank taken
        from its slot."""
        import torch

        from oea_server.routing import route as again

        assert self.step is not None
        slots = self.rows.slots(self.step)
        rows = [
            sum(slots[:rank]) + i for rank, n in enumerate(self.step.of_ranks) for i in range(n)
        ]
        row_k0, drafts = (
            None if each is None else each[rows]
            for each in (self.asked(len(logits)), self.drafts(len(logits)))
        )
        expected = again(
            logits[rows], self.policy, router.rule, layer=router.layer, row_k0=row_k0, drafts=drafts
        )
        same = torch.equal(expected.ids, routing.ids[rows]) and torch.equal(
            expected.weights, routing.weights[rows]
        )
        pads = [row for row in range(len(logits)) if row not in rows]
        return bool(
            same and torch.equal(expected.pool, routing.pool) and not routing.weights[pads].any()
        )

    Runtime.decoding = recorded  # type: ignore[method-assign]
    Runtime.is_vanilla = recorded_is_vanilla  # type: ignore[method-assign]
    Runtime.route = recorded_route  # type: ignore[method-assign]


def keep_routed(folder: Path) -> None:
    import itertools

    import torch

    from oea_server.engine import rejected
    from oea_server.engine.runtime import Runtime

    decoding, route, number = Runtime.decoding, Runtime.route, itertools.count()
    count_here = rejected.count_here
    layers: list[Any] = []
    last = folder / "none"

    @contextmanager
    def kept(self: Runtime, step: Any) -> Iterator[None]:
        nonlocal last
        layers.clear()
        with decoding(self, step):
            yield
        if step.counted:
            last = folder / f"{next(number):06}-{os.getpid()}.pt"
            found = {
                "batch": step.batch,
                "per_request": step.per_request,
                "tree": step.tree,
                "layers": layers,
            }
            rids = None if self.rows.forward_batch is None else self.rows.forward_batch.rids
            torch.save({**found, "rids": rids, "links": links_of(self.rows.forward_batch)}, last)

    def links_of(forward_batch: Any) -> list[Any]:
        info = getattr(forward_batch, "spec_info", None)
        links = [getattr(info, f"retrieve_next_{kind}", None) for kind in ("token", "sibling")]
        return [None if each is None else each.tolist() for each in links]

    def kept_route(self: Runtime, router: Any, logits: Any) -> Any:
        routing = route(self, router, logits)
        layers.append((logits.float().clone(), routing.ids.clone(), routing.weights.clone()))
        return routing

    def kept_rows(now: Runtime, tally: Any, kept: Any) -> None:
        torch.save(kept.tolist(), last.with_suffix(".accepted"))
        count_here(now, tally, kept)

    Runtime.decoding, Runtime.route = kept, kept_route  # type: ignore[method-assign]
    rejected.count_here = kept_rows
