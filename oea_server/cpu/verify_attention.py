"""Attention of a verify pass on the CPU: each request's drafts against its past, and against their
ancestors.

Seam: AROUND `TorchNativeAttnBackend.forward_extend`, SGLang's plain torch attention, which knows no
verify pass."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch

from oea_server.cpu import sinks


def install() -> None:
    from sglang.srt.layers.attention.torch_native_backend import TorchNativeAttnBackend

    TorchNativeAttnBackend.forward_extend = around(TorchNativeAttnBackend.forward_extend)


def around(original: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    @wraps(original)
    def forward_extend(
        self: Any,
        q: Any,
        k: Any,
        v: Any,
        layer: Any,
        forward_batch: Any,
        save_kv_cache: bool = True,
        **kwargs: Any,
    ) -> torch.Tensor:
        if not forward_batch.forward_mode.is_target_verify():
            return original(self, q, k, v, layer, forward_batch, save_kv_cache, **kwargs)
        from sglang.srt.mem_cache.memory_pool import KVWriteLoc

        pool, width = self.token_to_kv_pool, forward_batch.spec_info.draft_token_num
        if save_kv_cache:
            pool.set_kv_buffer(layer, KVWriteLoc(forward_batch.out_cache_loc, None), k, v)
        query = q.view(-1, layer.tp_q_head_num, layer.qk_head_dim)
        caches = pool.get_key_buffer(layer.layer_id), pool.get_value_buffer(layer.layer_id)
        lengths = forward_batch.seq_lens.tolist()
        masks = masks_of(forward_batch.spec_info.custom_mask, lengths, width)
        found = []
        for request, (length, mask) in enumerate(zip(lengths, masks, strict=True)):
            slots = self.req_to_token_pool.req_to_token[
                forward_batch.req_pool_indices[request], : length + width
            ]
            mine = query[request * width : (request + 1) * width]
            keys, values = (cache[slots].to(q.dtype) for cache in caches)
            near = windowed(mask, layer.sliding_window_size)
            with sinks.of(kwargs.get("sinks")):
                found.append(attend(mine, keys, values, near, layer.scaling))
        return torch.cat(found).flatten(1)

    return forward_extend


def masks_of(
    custom_mask: torch.Tensor | None, lengths: list[int], width: int
) -> list[torch.Tensor]:
    """For each request which of its past and its drafts each draft attends to, [width, length +
    width] bool.

    Args:
        custom_mask: so many bools after one another, those of the drafts alone, or None for chains
            (SGLang's `TreeMaskMode`).
    """
    chain = torch.ones(width, width, dtype=torch.bool).tril()
    if custom_mask is None:
        return [past_and(chain, length) for length in lengths]
    sizes = [width * (length + width) for length in lengths]
    if custom_mask.numel() >= sum(sizes):
        whole = custom_mask[: sum(sizes)].bool().split(sizes)
        return [each.view(width, -1) for each in whole]
    drafts = custom_mask[: len(lengths) * width * width].bool().view(-1, width, width)
    return [past_and(each, length) for each, length in zip(drafts, lengths, strict=True)]


def windowed(mask: torch.Tensor, window: int | None) -> torch.Tensor:
    """A mask cut to a window: at most `window` keys before a draft's own key, the last that it
    attends to."""
    if window is None or window < 0:
        return mask
    back = mask.sum(-1, keepdim=True) - mask.cumsum(-1)
    return mask & (back <= window)


def past_and(drafts: torch.Tensor, length: int) -> torch.Tensor:
    return torch.cat([drafts.new_ones(len(drafts), length), drafts], dim=1)


def attend(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    mask: torch.Tensor,
    scaling: float,
) -> torch.Tensor:
    """One request's drafts. query [n, heads, D], keys and values [L, kv heads, D], mask [n, L] ->
    [n, heads, D]."""
    q, k, v = (each.transpose(0, 1)[None] for each in (query, keys, values))
    found = sinks.attention(
        q, k, v, attn_mask=mask, scale=scaling, enable_gqa=q.shape[1] != k.shape[1]
    )
    return found[0].transpose(0, 1)
