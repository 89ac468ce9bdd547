"""Decode attention on the CPU for all sequences of a step at once.

Seam: `TorchNativeAttnBackend._run_sdpa_forward_decode`, SGLang's plain torch attention. It loops
over the sequences, a dozen small operators for each: at 16 of them more time than the experts of a
layer take."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

from oea_server.cpu import sinks

PADDING_ALLOWED = 4096
"""Tokens of padding that cost less than the loop does, whatever the lengths."""


def install() -> None:
    """Take over the steps that `decode` can do; leave SGLang the others."""
    from sglang.srt.layers.attention.torch_native_backend import TorchNativeAttnBackend

    TorchNativeAttnBackend._run_sdpa_forward_decode = around(
        TorchNativeAttnBackend._run_sdpa_forward_decode
    )


def around(original: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """SGLang's loop where sequences differ much in length, attend to an encoder, through a window
    or to a sink."""

    @wraps(original)
    def run(
        self: Any,
        query: torch.Tensor,
        output: torch.Tensor,
        k_cache: torch.Tensor,
        v_cache: torch.Tensor,
        req_to_token: torch.Tensor,
        req_pool_indices: torch.Tensor,
        seq_lens: torch.Tensor,
        encoder_lens: torch.Tensor | None,
        *args: Any,
        **kwargs: Any,
    ) -> torch.Tensor:
        plain = not args and encoder_lens is None and kwargs.get("sliding_window_size") is None
        plain = plain and sinks.of_layer is None
        if plain and query.dtype == k_cache.dtype == v_cache.dtype and worth_padding(seq_lens):
            tokens = req_to_token[:, : int(seq_lens.max())][req_pool_indices]
            out = decode(query, k_cache, v_cache, tokens, seq_lens, kwargs.get("scaling"))
            return output.copy_(out)
        caches = (k_cache, v_cache, req_to_token, req_pool_indices, seq_lens, encoder_lens)
        return original(self, query, output, *caches, *args, **kwargs)

    return run


def worth_padding(seq_lens: torch.Tensor) -> bool:
    """Whether reading every sequence as long as the longest costs less than a loop over them."""
    padded, total = len(seq_lens) * int(seq_lens.max()), int(seq_lens.sum())
    return len(seq_lens) > 1 and padded <= 2 * total + PADDING_ALLOWED


def decode(
    query: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    tokens: torch.Tensor,
    seq_lens: torch.Tensor,
    scaling: float | None,
) -> torch.Tensor:
    """One query token per sequence against its keys and values.

    Args:
        query: [B, heads, D].
        k_cache, v_cache: [slots, kv heads, D], of the query's dtype.
        tokens: [B, longest] slots of each sequence; what lies beyond its length is not read.
        seq_lens: [B], at least 1 each.

    Returns:
        [B, heads, D of v].
    """
    real = torch.arange(tokens.shape[1]) < seq_lens[:, None]
    # a masked slot weighs nothing, but nothing times the infinity that may lie in it is not nothing
    tokens = torch.where(real, tokens, tokens[:, :1])
    keys, values = (cache[tokens].transpose(1, 2) for cache in (k_cache, v_cache))
    mask = torch.zeros(real.shape, dtype=query.dtype).masked_fill_(~real, -torch.inf)
    # heads that share keys go as so many queries: enable_gqa would copy the keys for each
    shared = query.unflatten(1, (k_cache.shape[1], -1))
    out = scaled_dot_product_attention(
        shared, keys, values, attn_mask=mask[:, None, None], scale=scaling
    )
    return out.flatten(1, 2)
