"""What a server does of a disaggregated pair: a decode worker has decode steps, a prefill worker
has none.

Read of SGLang: `ServerArgs.disaggregation_mode`, and `enable_pd_role_switch`, by which a worker may
become the other."""

from __future__ import annotations

from typing import Any

NEVER_DECODES = "prefill worker: never decodes"


def idle(server_args: Any) -> str:
    """Why a server has no decode steps; empty if it has, or may get some.

    Args:
        server_args: `sglang.srt.server_args.ServerArgs`, resolved, or a view of it.
    """
    prefills = getattr(server_args, "disaggregation_mode", None) == "prefill"
    return (
        NEVER_DECODES
        if prefills and not getattr(server_args, "enable_pd_role_switch", False)
        else ""
    )
