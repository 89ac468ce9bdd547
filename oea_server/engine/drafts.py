"""Drafts of speculative decoding, whose rows a verify pass has: how many each request has, and what
each may see.

Read from `sglang.srt.speculative.spec_info.SpecInput`: SGLang lays the rows of a request side by
side, its last token first, then as many drafts for each (`num_tokens_per_req`)."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import torch

from oea_server.routing import trees


class Drafts(NamedTuple):
    """The rows of each request in a pass."""

    per_request: int = 1
    """Rows of a request: its token and the guesses at what follows."""
    tree: bool = False
    """Whether several drafts may be at the same place: NGRAM's always, EAGLE's above a topk of
    1."""


NONE = Drafts()


def is_step(mode: Any) -> bool:
    """Whether a pass is a decode step: of one row per request, or of a row and the drafts after
    it."""
    return bool(mode.is_decode() or mode.is_target_verify())


def of(forward_batch: Any) -> Drafts:
    """The drafts of a `ForwardBatch`; none for a verify pass that does not name them: the guard
    then ends it for its rows."""
    spec_info = getattr(forward_batch, "spec_info", None)
    if spec_info is None or not forward_batch.forward_mode.is_target_verify():
        return NONE
    # `tree_topk` is -1 in NGRAM's trees; DFLASH has a `topk` alone
    topk = getattr(spec_info, "tree_topk", getattr(spec_info, "topk", 1))
    return Drafts(max(1, int(getattr(spec_info, "num_tokens_per_req", 1))), topk != 1)


def of_graph(runner: Any) -> Drafts:
    """The drafts that a `DecodeCudaGraphRunner` captures for. Whether they are a tree, a graph
    reads at each replay."""
    return (
        Drafts(int(runner.captured_req_width))
        if runner.capture_forward_mode.is_target_verify()
        else NONE
    )


def write_trees(forward_batch: Any, rows: int, into: torch.Tensor) -> bool:
    """Write what `oea_server.routing.route` asks of each row of a batch whose drafts are trees, its
    ancestors among it.

    Args:
        rows: of all its requests.
        into: [at least rows] int64.

    Returns:
        Whether SGLang says what follows what (`EagleVerifyInput`, `NgramVerifyInput`); it does in
        no capture.
    """
    spec_info = getattr(forward_batch, "spec_info", None)
    child, sibling = (
        getattr(spec_info, f"retrieve_next_{kind}", None) for kind in ("token", "sibling")
    )
    if child is None or sibling is None or child.numel() != rows or rows > len(into):
        return False
    trees.write(child, sibling, into)
    return True


@lru_cache(maxsize=256)
def depths(rows: int, drafts: Drafts, device: torch.device) -> torch.Tensor:
    """Depth of each row, from the kind of drafts alone: 0 for a token, a guess's place in a chain,
    -1 in a tree. [rows] int64. What has a graph's address is written there, not here."""
    place = torch.arange(rows, device=device) % drafts.per_request
    return -(place > 0).long() if drafts.tree else place
