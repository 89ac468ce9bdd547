"""What a server on a CPU sets for its processes, and leaves alone where the user did."""

from __future__ import annotations

import os
from types import SimpleNamespace
from unittest.mock import Mock

import pytest

WANTED = {
    "OMP_WAIT_POLICY": "passive",
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "128",
    "LRU_CACHE_CAPACITY": "128",
    "SGLANG_CUDA_COREDUMP_BEFORE_CRASH": "0",
    "SGLANG_NATIVE_MOVE_KV_CACHE": "1",
    "SGLANG_DISAGG_PREFILL_EARLY_SEND_CACHED_PREFIX": "0",
}


def test_variables_are_set_unless_the_user_did(monkeypatch: pytest.MonkeyPatch) -> None:
    import sglang.srt.platforms
    import sglang.srt.server_args  # noqa: F401

    from oea_server.cpu.platform import ENVIRONMENT, OeaCpuPlatform

    monkeypatch.setattr(os, "environ", {"LRU_CACHE_CAPACITY": "7"})
    OeaCpuPlatform.apply_server_args_defaults(
        Mock(), SimpleNamespace(tp_size=1, pp_size=1, dp_size=1, nnodes=1)
    )
    assert os.environ == {**WANTED, "LRU_CACHE_CAPACITY": "7"}
    assert ENVIRONMENT == WANTED


@pytest.mark.parametrize(
    ("tp", "pp", "dp", "attention", "nodes", "ranks"),
    [
        (1, 1, 1, False, 1, 1),
        (2, 1, 1, False, 1, 2),
        (1, 2, 1, False, 1, 2),
        (1, 1, 2, False, 1, 2),
        (2, 2, 2, False, 1, 8),
        (2, 1, 2, True, 1, 2),  # the replicas share the ranks
        (2, 1, 1, False, 2, 1),
        (4, 2, 1, False, 2, 4),
    ],
)
def test_every_rank_of_this_machine_is_counted(
    tp: int,
    pp: int,
    dp: int,
    attention: bool,
    nodes: int,
    ranks: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from oea_server.cpu.platform import ranks_here

    def by_world(*, numa_index: int, world_size: int) -> None: ...

    monkeypatch.setattr("sglang.srt.utils.numa_utils.init_threads_binding", by_world)
    args = SimpleNamespace(
        tp_size=tp, pp_size=pp, dp_size=dp, enable_dp_attention=attention, nnodes=nodes
    )
    assert ranks_here(args) == ranks


def test_0517_takes_cores_for_tensor_parallel_ranks_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from oea_server.cpu.platform import ranks_here

    def by_tensor_parallel_rank(*, tp_rank: int, tp_size: int) -> None: ...

    monkeypatch.setattr("sglang.srt.utils.numa_utils.init_threads_binding", by_tensor_parallel_rank)
    assert (
        ranks_here(
            SimpleNamespace(tp_size=2, pp_size=2, dp_size=2, enable_dp_attention=False, nnodes=1)
        )
        == 2
    )
    assert (
        ranks_here(
            SimpleNamespace(tp_size=1, pp_size=2, dp_size=1, enable_dp_attention=False, nnodes=1)
        )
        == 1
    )


@pytest.mark.parametrize(
    ("cores", "ranks", "nodes", "bound"),
    [
        ({0, 1, 2, 3}, 1, 1, None),
        ({0, 1, 2, 3}, 2, 1, "0,1|2,3"),
        ({0, 1, 2, 3, 4}, 2, 1, "0,1|2,3"),
        ({4, 6}, 2, 1, "4|6"),
        ({4, 6}, 3, 1, "4|6|4"),
        ({4}, 2, 1, "4|4"),
        ({4, 6}, 1, 2, "4,6|4,6"),  # SGLang asks for a share of every rank, on whichever node
        ({4, 6}, 2, 2, "4|6|4|6"),
    ],
)
def test_every_rank_has_cores(
    cores: set[int], ranks: int, nodes: int, bound: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from oea_server.cpu.platform import bind_cores

    monkeypatch.setattr(os, "environ", {})
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: cores)
    bind_cores(ranks, nodes)
    assert os.environ.get("SGLANG_CPU_OMP_THREADS_BIND") == bound


def test_what_is_a_kernel_for_gpus_by_default_is_torch_here(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import sglang.srt.platforms
    import sglang.srt.server_args  # noqa: F401

    from oea_server.cpu.platform import OeaCpuPlatform

    monkeypatch.setattr(os, "environ", {})
    asked = {
        "tp_size": 1,
        "pp_size": 1,
        "dp_size": 1,
        "nnodes": 1,
        "lora_paths": ["a=b"],
        "lora_backend": "csgmv",
    }
    args = SimpleNamespace(
        **asked,
        enable_hierarchical_cache=True,
        hicache_io_backend="kernel",
        hicache_mem_layout="page_first",
    )
    OeaCpuPlatform.apply_server_args_defaults(Mock(), args)
    assert (args.hicache_io_backend, args.hicache_mem_layout) == ("direct", "layer_first")
    assert args.lora_backend == "torch_native"
