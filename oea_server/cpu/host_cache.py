"""HiCache without a GPU: KV caches go to memory of the host, which is the device, and come back.

Seam: `transfer_kv_direct`, a compiled kernel that `sglang.srt.mem_cache.pool_host.mha` imports
where there is a GPU, and calls with `--hicache-io-backend direct --hicache-mem-layout layer_first`.
What is kept, evicted and loaded again is SGLang's to say."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

import torch

POOLS = "sglang.srt.mem_cache.pool_host.mha"
BACKEND, LAYOUT = "direct", "layer_first"
"""Whose one kernel has a stand-in."""


def install() -> None:
    """Put the stand-in where SGLang's pools will look for it."""
    importlib.import_module(POOLS).transfer_kv_direct = transfer_kv_direct  # type: ignore[attr-defined]


def transfer_kv_direct(
    src_layers: Sequence[torch.Tensor],
    dst_layers: Sequence[torch.Tensor],
    src_indices: torch.Tensor,
    dst_indices: torch.Tensor,
    page_size: int,
) -> None:
    """Copy tokens' keys or values, layer by layer.

    Args:
        src_layers, dst_layers: [tokens, heads, head_dim] each.
        src_indices, dst_indices: [n] int64, which token goes where; whole pages of `page_size`.
    """
    for source, target in zip(src_layers, dst_layers, strict=True):
        target[dst_indices] = source[src_indices]
