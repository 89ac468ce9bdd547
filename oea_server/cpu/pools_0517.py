"""What SGLang 0.5.17 wants a platform to name itself and later versions default: the KV pools.

Delete this file when the supported range no longer reaches down to 0.5.17.
"""

from __future__ import annotations

from typing import Any

from sglang.srt.platforms.interface import SRTPlatform


class NamesPools(SRTPlatform):  # type: ignore[misc]
    """The in-tree pool and allocator, which are plain torch at page size 1."""

    def get_mha_kv_pool_cls(self) -> Any:
        from sglang.srt.mem_cache.memory_pool import MHATokenToKVPool

        return MHATokenToKVPool

    def get_paged_allocator_cls(self) -> Any:
        from sglang.srt.mem_cache.allocator import TokenToKVPoolAllocator

        def allocator(size: int, *, page_size: int, **kwargs: Any) -> Any:
            if page_size != 1:
                raise ValueError(
                    f"--page-size {page_size}: the CPU platform under SGLang 0.5.17 has only 1;"
                    " leave it out"
                )
            return TokenToKVPoolAllocator(size, **kwargs)

        return allocator


Base = SRTPlatform if hasattr(SRTPlatform, "get_kv_pool_cls") else NamesPools
