"""A bias of one row, as ERNIE's, where SGLang chooses experts in plain torch.

Seam: `sglang.srt.layers.moe.topk.fused_topk_torch_native`, which takes the scores' shape for the
bias's. For its own CPU engine SGLang takes the row out in `models/ernie4.py`, where it does not
know our platform."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch


def install() -> None:
    from sglang.srt.layers.moe import topk

    ours = around(topk.fused_topk_torch_native)
    for name in ("fused_topk_torch_native", "fused_topk_native"):  # one function by two names
        setattr(topk, name, ours)


def around(original: Callable[..., Any]) -> Callable[..., Any]:
    """A top-k function that also takes a `correction_bias` of [1, N], as one of [N]."""

    @wraps(original)
    def chosen(*args: Any, correction_bias: torch.Tensor | None = None, **kwargs: Any) -> Any:
        if correction_bias is not None and correction_bias.dim() > 1:
            correction_bias = correction_bias.squeeze(0)
        return original(*args, correction_bias=correction_bias, **kwargs)

    return chosen
