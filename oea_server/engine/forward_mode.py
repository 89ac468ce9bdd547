"""Which forward passes are decode steps, and how many of their rows are tokens.

Seams: AROUND `ModelRunner.forward` (every pass, before a graph is replayed or padded) and AROUND
`DecodeCudaGraphRunner.capture_one_shape` (graph capture calls the model without `ModelRunner.forward`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from oea_server.engine import runtime
from oea_server.engine.step import Step
from oea_server.engine.warmup import WARMUP_PREFIX

HEALTH_CHECK_PREFIX = "HEALTH_CHECK"
"""`sglang.srt.constants.HEALTH_CHECK_RID_PREFIX`."""


def around_forward(original: Callable[..., Any], self: Any, forward_batch: Any, *args: Any, **kwargs: Any) -> Any:
    """Mark pure decode batches; prefill, mixed, verification and idle take SGLang's own path."""
    now = runtime.current
    if now is None or self.is_draft_worker:
        return original(self, forward_batch, *args, **kwargs)
    counted = is_traffic(forward_batch.rids or ())
    if not forward_batch.forward_mode.is_decode():
        if counted:
            now.bypassed[kind_of(forward_batch.forward_mode)] += 1
        return original(self, forward_batch, *args, **kwargs)
    with now.decoding(Step(forward_batch.batch_size, counted)):
        return original(self, forward_batch, *args, **kwargs)


def around_capture(original: Callable[..., Any], self: Any, size: int, *args: Any, **kwargs: Any) -> Any:
    """Capture decode graphs with the policy inside; the real rows stay a number on the device."""
    now = runtime.current
    if now is None or self.model_runner.is_draft_worker or not self.capture_forward_mode.is_decode():
        return original(self, size, *args, **kwargs)
    with now.decoding(Step(size, counted=False, capturing=True)):
        return original(self, size, *args, **kwargs)


def kind_of(mode: Any) -> str:
    """What a forward pass that is no decode step is, as a reason why routing is not ours in it."""
    return {"EXTEND": "prefill", "MIXED": "mixed", "TARGET_VERIFY": "verify"}.get(mode.name, "other")


def is_traffic(request_ids: Iterable[str]) -> bool:
    """Whether any request of the batch is a user's: not a health check, not the server's warm-up."""
    return any(not rid.startswith((HEALTH_CHECK_PREFIX, WARMUP_PREFIX)) for rid in request_ids)
