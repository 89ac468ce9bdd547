"""What a process's steps will run, compiled before the first step. On a GPU without graphs the
first health check would wait for the compiler."""

from __future__ import annotations

from typing import Any

import torch

from oea_server.engine.runtime import Runtime


def compile_ahead(now: Runtime, dtype: torch.dtype) -> None:
    """Compile the launches of a runtime that serves on a GPU and counts; one elsewhere has none.

    Args:
        dtype: of the model's weights; routers with a bias have logits in float32.
    """
    if now.device.type != "cuda":
        return
    from oea_server.routing import fused
    from oea_server.routing.counting import count_kept, records_of

    assert now.knobs is not None
    kinds = {router.rule.kind: router for router in now.routers.values()}
    for router in kinds.values():
        rule = router.rule
        told: dict[str, Any] = {
            "num_real": now.rows.memory.real,
            "tally": now.tally,
            "placement": now.where(router.layer),
        }
        for each in {dtype, dtype if rule.bias is None else torch.float32}:
            fused.warm_up(each, now.knobs, rule, drafts=now.steering.verifies, asks=True, **told)
    for tally in (now.tally, now.shadow_tally):
        if tally is not None:  # before any capture, whose memory is another's at the next
            records_of(tally, now.num_experts)
    if now.steering.verifies and now.tally is not None:
        count_kept(now.tally, torch.full((1, 1), -1, dtype=torch.int32, device=now.device))
