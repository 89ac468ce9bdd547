"""A plug-in for one test: SGLang's DP attention runs on a CPU, and no table of ours refuses it.

On the server's PYTHONPATH together with its .dist-info. SGLang 0.5.23 gathers the rows of all ranks
with a kernel for GPUs, in pinned memory, padded for graphs. None of what is replaced here chooses
experts.
"""

from __future__ import annotations

import sys
from typing import Any


def activate() -> None:
    """In whichever process loads plug-ins."""
    from oea_server.engine import options

    options.CONFLICTS = ()
    if "sglang.srt.managers.scheduler" in sys.modules:
        gather_on_cpu()


def gather_on_cpu() -> None:
    """SGLang reads all of these when a batch is prepared or gathered, long after plug-ins are loaded."""
    from sglang.srt.layers import dp_attention
    from sglang.srt.layers.attention.base_attn_backend import AttentionBackend
    from sglang.srt.model_executor import forward_batch_info

    # memory: no pinning, no Triton
    forward_batch_info._is_cpu = dp_attention._is_cpu = True
    dp_attention.memcpy_func = dp_attention.memcpy_cpu

    def sum_len(mode: Any, *_: Any) -> Any:
        return mode.SUM_LEN

    # rows: those of all ranks one after another; the other mode is a collective that gloo lacks
    dp_attention.DpPaddingMode.get_dp_padding_mode = classmethod(sum_len)

    def one(backend: Any) -> int:
        return 1

    # what graphs are filled up with, which CPUs' attention does not say
    AttentionBackend.get_cuda_graph_seq_len_fill_value = one
    AttentionBackend.get_cpu_graph_seq_len_fill_value = one
