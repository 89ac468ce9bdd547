"""SGLang on a machine without a GPU, as an out-of-tree platform.

Seam: entry point `sglang.srt.platforms`. SGLang's own CPU engine wants kernels that its published
wheel does not carry; an out-of-tree platform takes the plain torch paths instead and runs on any
x86-64 or arm64.
"""

from __future__ import annotations

import inspect
import os
from typing import Any

import torch
from sglang.srt.platforms.cpu import CpuDeviceMixin
from sglang.srt.platforms.device_mixin import PlatformEnum

from oea_server.cpu import adapters, host_cache
from oea_server.cpu.pools_0517 import Base
from oea_server.engine.ranks import schedulers_here

ENVIRONMENT = {
    # Threads that wait by spinning hold the core that another process, or their own team, needs: on
    # two cores a layer then took a scheduler's time slice for every barrier, four times as long.
    "OMP_WAIT_POLICY": "passive",
    # oneDNN and torch keep a kernel per shape, 1024 of them, and each prefill has another shape:
    # hundreds of MiB over thousands of requests. A decode step needs a few dozen.
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "128",
    "LRU_CACHE_CAPACITY": "128",
    # Before it ends over a dead detokenizer, SGLang waits a minute for core dumps of GPUs.
    "SGLANG_CUDA_COREDUMP_BEFORE_CRASH": "0",
    # Accepted drafts move in the KV cache: by torch, not by a Triton kernel.
    "SGLANG_NATIVE_MOVE_KV_CACHE": "1",
    # A prefill worker that sends what is cached before it computes the rest waits for an event of
    # CUDA's.
    "SGLANG_DISAGG_PREFILL_EARLY_SEND_CACHED_PREFIX": "0",
}
"""What a server's processes get where the user has not set it."""


class OeaCpuPlatform(CpuDeviceMixin, Base):  # type: ignore[misc, valid-type]
    """Plain torch, with experts and decode attention of our own; no graphs, no compilation."""

    _enum = PlatformEnum.OOT

    def apply_server_args_defaults(self, server_args: Any) -> None:
        # 0.5.17 asks the platform whether graphs are there (below); 0.5.18+ asks these fields.
        for name in ("cuda_graph_backend_decode", "cuda_graph_backend_prefill"):
            if getattr(server_args, name, "absent") is None:
                setattr(server_args, name, "disabled")
        if (
            getattr(server_args, "enable_eplb", False)
            and server_args.eplb_rebalance_layers_per_chunk is None
        ):
            # else it times the move by CUDA's clock
            server_args.eplb_rebalance_layers_per_chunk = 1024
        # the defaults are kernels for GPUs
        if getattr(server_args, "enable_hierarchical_cache", False):
            server_args.hicache_io_backend, server_args.hicache_mem_layout = (
                host_cache.BACKEND,
                host_cache.LAYOUT,
            )
        if getattr(server_args, "enable_lora", None) or getattr(server_args, "lora_paths", None):
            server_args.lora_backend = adapters.BACKEND
        server_args.sleep_on_idle = True  # else an idle server keeps a core busy
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        bind_cores(ranks_here(server_args), int(server_args.nnodes))

    def get_default_attention_backend(self) -> str:
        return "torch_native"

    def get_device(self, device_id: int = 0) -> str:  # type: ignore[override]
        # SGLang's argument handling splits the name at ":"; its mixin returns an object
        return "cpu"

    def is_pin_memory_available(self, device: Any = None) -> bool:
        return False

    def get_compile_backend(self, mode: str | None = None) -> str:
        return "eager"

    def supports_speculative_algorithm(self, algorithm: str) -> bool:
        from oea_server.cpu.speculation import ALGORITHMS, complete

        return algorithm in ALGORITHMS and complete()

    def get_speculative_worker_cls(self, algorithm: str) -> None:
        """SGLang's own workers, over our stand-ins: it asks before it imports one, and only where
        speculation is on."""
        from oea_server.cpu import speculation

        speculation.install()

    def get_speculative_cache_locs_fn(self) -> Any:
        from oea_server.cpu.speculation import slots_of_drafts

        return slots_of_drafts

    def init_backend(self) -> None:
        from oea_server.cpu import (
            attention,
            biases,
            dp_attention,
            experts,
            kernels,
            sinks,
            transfer,
        )

        # SGLang asks for memory and adapters after this
        host_cache.install()
        adapters.install()

        experts.install(self.get_dispatch_key_name())
        attention.install()
        sinks.install()
        kernels.install()
        biases.install()
        dp_attention.install()
        transfer.install()
        allocate_unpinned()


def ranks_here(server_args: Any) -> int:
    """How many ranks of this machine SGLang asks cores for."""
    from sglang.srt.utils import numa_utils  # which asks for the platform, so for this module

    if "tp_size" in inspect.signature(numa_utils.init_threads_binding).parameters:
        # 0.5.17 looks a rank's cores up by its tensor-parallel rank alone, and wants no entry more
        return max(1, int(server_args.tp_size) // int(server_args.nnodes))
    return schedulers_here(server_args)


def bind_cores(ranks: int, nodes: int = 1) -> None:
    """Give each rank of this machine its own share of the cores, as SGLang asks for more ranks than
    NUMA nodes.

    It asks for those of all nodes, and 0.5.17 counts through them. Where there are fewer cores than
    ranks, some share one."""
    cores = sorted(os.sched_getaffinity(0))
    if ranks * nodes < 2 or "SGLANG_CPU_OMP_THREADS_BIND" in os.environ:
        return
    share = max(1, len(cores) // ranks)
    starts = [rank * share % len(cores) for rank in range(ranks)] * nodes
    os.environ["SGLANG_CPU_OMP_THREADS_BIND"] = "|".join(
        ",".join(map(str, cores[start : start + share])) for start in starts
    )


def allocate_unpinned() -> None:
    """Host buffers (routing replay's, for one) without pinning, which asks for a CUDA driver."""
    try:
        from sglang.srt.mem_cache.pool_host.common import ALLOC_MEMORY_FUNCS
    except ImportError:
        # 0.5.17 pins unconditionally: --enable-return-routed-experts needs a GPU there
        return

    def allocate(dims: tuple[int, ...], dtype: torch.dtype, device: str, **_: Any) -> torch.Tensor:
        return torch.empty(dims, dtype=dtype, device=device)

    ALLOC_MEMORY_FUNCS["cpu"] = allocate
