"""How many ranks a server has on one machine."""

from __future__ import annotations

from typing import Any


def schedulers_here(server_args: Any) -> int:
    """Schedulers of this machine: its share of stages, replicas and tensor-parallel ranks, one at
    least.

    Args:
        server_args: `sglang.srt.server_args.ServerArgs`, or a view of it.
    """
    # under DP attention replicas share out one server's ranks
    replicas = 1 if getattr(server_args, "enable_dp_attention", False) else server_args.dp_size
    ranks: int = server_args.tp_size * server_args.pp_size * replicas
    return max(1, ranks // int(server_args.nnodes))
