"""Which rows of a verify pass were kept, and how many experts only the others woke.

Seam: AFTER `sglang.srt.speculative.eagle_utils.eagle_sample`, which accepts the drafts of EAGLE and
its kin and of NGRAM. Nothing here waits for a device: on a GPU one more launch counts what the
step's have written down."""

from __future__ import annotations

from typing import Any

import torch

from oea_server.engine import drafts, runtime
from oea_server.engine.drafts import Drafts
from oea_server.engine.runtime import Runtime
from oea_server.routing import host
from oea_server.routing.tally import ACCEPTED_ROWS, REJECTED_EXPERTS, Tally


def after_eagle_sample(result: Any, *args: Any, **kwargs: Any) -> None:
    """Count, once for a step. `result` is (predict, accept_lens, accept_index), of which the last
    names the rows that were kept: [requests, *] int32, tokens' own among them, -1 for nothing."""
    now = runtime.current
    if now is None or now.tally is None or now.verified is None or not now.reports:
        return
    kept = result[2]
    # other ranks' rows are in the pool, and theirs to accept
    if now.verified.of_ranks or not kept.numel():
        return
    if now.tally.data.is_cuda:
        from oea_server.routing.counting import count_kept

        count_kept(now.tally, kept)
    else:
        count_here(now, now.tally, kept[kept >= 0].long())
    now.verified = None


def count_here(now: Runtime, tally: Tally, kept: torch.Tensor) -> None:
    """Without a GPU the floors are not written down: those of the kept rows alone are worked out
    anew, [rows] int64."""
    step = now.verified
    assert step is not None
    tally.verified[:, ACCEPTED_ROWS] += len(kept)
    if now.policy.name == "random":  # which draws by a row's place
        return
    of = drafts.depths(step.batch, Drafts(step.per_request, step.tree), kept.device)[kept]
    for layer, (rule, logits, asked, pool) in now.awake.items():
        wishes = None if asked is None else asked[kept]
        alone = host.route(
            logits[kept], now.policy, rule, drafts=of, row_k0=wishes, layer=layer
        ).pool
        tally.verified[tally.row[layer], REJECTED_EXPERTS] += pool.sum() - alone.sum()
