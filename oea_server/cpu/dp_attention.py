"""What SGLang's DP attention does with GPUs' own memory and collectives, by torch and gloo.

Seams, each a stand-in for one kernel, one kind of memory or one collective; who pads, gathers and
scatters rows is SGLang's:

- `sglang.srt.layers.dp_attention.memcpy_func`, a Triton kernel that copies rows: SGLang's own copy
  for CPUs;
- `_is_cpu` of that module and of `sglang.srt.model_executor.forward_batch_info`, which says there
  whether to pin host memory, and which fill value to ask for;
- `TorchNativeAttnBackend.get_cpu_graph_seq_len_fill_value`: the length of a request that pads a
  batch;
- `GroupCoordinator.all_gather_into_tensor`, `reduce_scatter_tensor` and `reduce_scatterv`, whose
  operators are NCCL's.
"""

from __future__ import annotations

from typing import Any

import torch


def install() -> None:
    """Put the stand-ins where SGLang reads them when a batch is prepared or gathered."""
    from sglang.srt.distributed.parallel_state import GroupCoordinator
    from sglang.srt.layers import dp_attention
    from sglang.srt.layers.attention.torch_native_backend import TorchNativeAttnBackend
    from sglang.srt.model_executor import forward_batch_info

    if not (hasattr(forward_batch_info, "_is_cpu") and hasattr(dp_attention, "memcpy_cpu")):
        return  # 0.5.17 pins memory whatever it runs on: DP attention needs a GPU there
    dp_attention.memcpy_func = dp_attention.memcpy_cpu
    dp_attention._is_cpu = forward_batch_info._is_cpu = True
    for name in ("get_cpu_graph_seq_len_fill_value", "get_cuda_graph_seq_len_fill_value"):
        setattr(TorchNativeAttnBackend, name, padded_length)
    for name, ours in COLLECTIVES.items():
        getattr(GroupCoordinator, name)  # an AttributeError where SGLang has renamed it
        setattr(GroupCoordinator, name, ours)


def padded_length(backend: Any) -> int:
    """Rows of a request that pads a batch: one, or the rows of a verify pass, which a drafting
    layer takes for a prefill."""
    from sglang.srt.runtime_context import get_server_args

    return get_server_args().speculative_num_draft_tokens or 1


def all_gather_into_tensor(self: Any, output: torch.Tensor, input: torch.Tensor) -> None:
    """All ranks' rows in order of ranks, [ranks * B, H] from [B, H] each."""
    torch.distributed.all_gather_into_tensor(output, input, group=self.device_group)


def reduce_scatter_tensor(self: Any, output: torch.Tensor, input: torch.Tensor) -> None:
    """The sum over ranks of [ranks * B, H], of which each rank gets its own [B, H]."""
    torch.distributed.reduce_scatter_tensor(output, input, group=self.device_group)


def reduce_scatterv(
    self: Any,
    input_: torch.Tensor,
    output: torch.Tensor | None = None,
    sizes: list[int] | None = None,
) -> torch.Tensor:
    """`reduce_scatter_tensor` where ranks have `sizes` rows, equal shares if not given."""
    sizes = sizes or [len(input_) // self.world_size] * self.world_size
    summed = self.all_reduce(input_.clone())
    first = sum(sizes[: self.rank_in_group])
    own: torch.Tensor = summed[first : first + sizes[self.rank_in_group]]
    return own if output is None else output.copy_(own)


COLLECTIVES = {
    "all_gather_into_tensor": all_gather_into_tensor,
    "reduce_scatter_tensor": reduce_scatter_tensor,
    "reduce_scatterv": reduce_scatterv,
}
