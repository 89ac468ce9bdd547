"""Attention sinks on the CPU, of gpt-oss and MiMo-V2: a number for each head, in the softmax, that
adds nothing.

Seams: `TorchNativeAttnBackend.forward_extend` and `.forward_decode`, which know no `sinks`, and the
`scaled_dot_product_attention` that their loops call, to which a sink is one more key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import torch
from torch.nn import functional

of_layer: torch.Tensor | None = None
"""[heads] of the layer that runs; None where it has none."""


def install() -> None:
    """Teach SGLang's plain torch attention of sinks; without them nothing changes."""
    from sglang.srt.layers.attention import torch_native_backend

    torch_native_backend.scaled_dot_product_attention = attention
    backend = torch_native_backend.TorchNativeAttnBackend
    backend.forward_extend = taking_sinks(backend.forward_extend)
    backend.forward_decode = taking_sinks(backend.forward_decode)


@contextmanager
def of(sinks: torch.Tensor | None) -> Iterator[None]:
    """A context in which attention uses a layer's sinks."""
    global of_layer
    of_layer = sinks
    try:
        yield
    finally:
        of_layer = None


def taking_sinks(original: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    @wraps(original)
    def forward(*args: Any, sinks: torch.Tensor | None = None, **kwargs: Any) -> torch.Tensor:
        with of(sinks):
            return original(*args, **kwargs)

    return forward


def attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    is_causal: bool = False,
    **kwargs: Any,
) -> torch.Tensor:
    """torch's, where a layer has sinks with one key more: its score is the head's sink, its value
    nothing.

    Args:
        query: [1, heads, Q, D].
        key, value: [1, kv heads, K, D].
        attn_mask: [Q, K] bool.
        is_causal: query i attends to keys 0 to i, as torch has it.
    """
    if of_layer is None:
        return functional.scaled_dot_product_attention(
            query, key, value, attn_mask=attn_mask, is_causal=is_causal, **kwargs
        )
    queries, keys = query.shape[-2], key.shape[-2]
    if attn_mask is None:
        attn_mask = torch.ones(queries, keys, dtype=torch.bool)
        attn_mask = attn_mask.tril() if is_causal else attn_mask
    scores = torch.zeros(queries, keys, dtype=query.dtype).masked_fill_(~attn_mask, -torch.inf)
    sinks = of_layer.to(query.dtype)[:, None, None].expand(-1, queries, 1)
    mask = torch.cat([scores.expand(len(of_layer), -1, -1), sinks], dim=-1)
    key, value = (functional.pad(each, (0, 0, 0, 1)) for each in (key, value))
    return functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, **kwargs)
