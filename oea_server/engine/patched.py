"""The seams of a patched SGLang, in place of what hooks do: the same functions, called from inside.

Seam: `sglang.srt.layers.moe.batch_routing`, which `patches/` adds (`oea-server patch apply`).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from oea_server.engine import drafts, forward_mode, runtime, topk


class Batched:
    """The process's `BatchRouter`, as `batch_routing` calls it."""

    def __init__(self) -> None:
        self._vanilla = True
        """Of the layer that chooses now: SGLang asks for its function, and tells its choice, before
        the next layer."""

    def forward_pass(self, info: Any) -> AbstractContextManager[None]:
        now = runtime.current
        if now is None:
            return nullcontext()
        if info.capturing:
            return forward_mode.capturing(
                now, info.forward_mode, info.batch_size, now.rows.captured
            )
        of = drafts.NONE if now.rows.forward_batch is None else drafts.of(now.rows.forward_batch)
        return forward_mode.running(now, info.forward_mode, info.batch_size, info.rids, of)

    def routing_function(self, layer_id: int | None, topk_config: Any) -> Callable[..., Any] | None:
        now = runtime.current
        router = topk.router_of(now, layer_id)
        choice = (
            None if now is None or router is None else topk.function_of(now, router, topk_config)
        )
        self._vanilla = choice is None
        return choice

    def on_selected(
        self, layer_id: int | None, router_logits: torch.Tensor, topk_ids: torch.Tensor
    ) -> None:
        now = runtime.current
        router = topk.router_of(now, layer_id)
        if now is not None and router is not None:
            topk.count(now, router, router_logits, topk_ids, vanilla=self._vanilla)
