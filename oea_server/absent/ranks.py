"""The first of many ranks, without the others: SGLang's own widths and groups, and nobody to talk
to.

Seam: `sglang.srt.distributed.parallel_state.GroupCoordinator`, whose communicators want a GPU each.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch


@contextmanager
def alone(server_args: Any) -> Iterator[None]:
    """Run the current process as rank 0 of the resolved arguments' ranks, all pipeline stages in
    one: a router does not depend on its stage."""
    from sglang.srt.distributed import bootstrap, parallel_state
    from sglang.srt.layers.moe.utils import initialize_moe_config
    from sglang.srt.runtime_context import SpawnRanks, get_parallel, publish, reset_context
    from torch.testing._internal.distributed.fake_pg import FakeStore

    publish(server_args, role="scheduler", ranks=SpawnRanks(world_rank=0, dp_rank=None, gpu_id=0))
    parallel = get_parallel()
    try:
        with (
            parallel.override(pp_size=1),
            mock.patch.object(parallel_state, "GroupCoordinator", Group),
        ):
            torch.distributed.init_process_group(
                "fake", store=FakeStore(), rank=0, world_size=parallel.tp_size * parallel.pp_size
            )
            bootstrap._init_parallel_groups(
                backend="fake", dist_init_method="", server_args=server_args, gpu_id=0
            )
            initialize_moe_config()
            initialize_gemms()
            yield
    finally:
        forget(parallel_state)
        reset_context()
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def initialize_gemms() -> None:
    """What a scheduler sets up before it builds a model."""
    from sglang.srt.layers.quantization.fp4_utils import initialize_fp4_gemm_config
    from sglang.srt.layers.quantization.fp8_utils import initialize_fp8_gemm_config
    from sglang.srt.layers.quantization.unquant import initialize_bf16_gemm_config

    initialize_fp8_gemm_config()
    initialize_fp4_gemm_config()
    initialize_bf16_gemm_config()


def forget(parallel_state: Any) -> None:
    """The groups of SGLang's module: the next command has others."""
    for name, value in vars(parallel_state).items():
        if isinstance(value, Group):
            setattr(parallel_state, name, None)


class Group:
    """A group of ranks that knows who is in it. Whoever would communicate finds no such method."""

    def __init__(
        self, group_ranks: list[list[int]], local_rank: int, *_: Any, **named: Any
    ) -> None:
        self.ranks = next(ranks for ranks in group_ranks if 0 in ranks)
        self.rank = self.rank_in_group = 0
        self.local_rank = local_rank
        self.world_size = len(self.ranks)
        self.unique_name = str(named.get("group_name"))
        self.first_rank, self.last_rank = self.ranks[0], self.ranks[-1]
        self.is_first_rank, self.is_last_rank = True, self.world_size == 1
        self.device = torch.device("meta")
        self.device_group = self.cpu_group = torch.distributed.group.WORLD
        self.pynccl_comm = self.ca_comm = self.pymscclpp_comm = self.torch_symm_mem_comm = (
            self.mq_broadcaster
        ) = None
        self._fi_workspace_hint: str | None = None
