"""The entry point `sglang.srt.platforms`: our CPU platform where there is no accelerator."""

from __future__ import annotations

import os

PLATFORM = "oea_server.cpu.platform.OeaCpuPlatform"


def activate() -> str | None:
    """Name the platform class, or None where SGLang's own platform should serve."""
    import torch

    if os.environ.get("SGLANG_USE_CPU_ENGINE", "0") == "1":
        return None
    accelerators = (
        torch.cuda.is_available(),
        torch.xpu.is_available(),
        torch.backends.mps.is_available(),
    )
    return None if any(accelerators) else PLATFORM
