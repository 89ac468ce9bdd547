"""The experts of one layer: random weights, and whichever kernels serve them on this machine."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from oea_server.lab.bench.presets import Preset
from oea_server.lab.bench.sglang_kernels import Experts


@dataclass(frozen=True, slots=True)
class Layer:
    """Experts that can be called, and which kernels they are."""

    kind: str
    why: str
    run: Experts


def open_layer(preset: Preset, device: torch.device, seed: int) -> Layer:
    """Make a preset's experts, in bfloat16.

    On a GPU SGLang's Triton kernels; on the CPU those of our CPU platform.
    """
    w13, w2 = make_weights(preset, device, seed)
    if device.type == "cuda":
        from oea_server.lab.bench.sglang_kernels import gpu_experts

        return Layer(
            "sglang fused_moe_triton",
            "SGLang's default for unquantised experts",
            gpu_experts(w13, w2, preset.num_experts),
        )
    from oea_server.cpu.experts import open_experts

    return Layer(*open_experts(w13, w2))


def make_weights(
    preset: Preset, device: torch.device, seed: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """w13 [local, 2I, H] and w2 [local, H, I], bfloat16, scaled as trained layers are.

    One random block, another multiple of it for each expert. Random numbers for a whole layer take
    longer than the benchmark, and to a matmul all finite normal numbers are alike."""
    generator = torch.Generator(device).manual_seed(seed)
    count, hidden, inner = preset.local_experts, preset.hidden, preset.intermediate

    def tiled(rows: int, columns: int) -> torch.Tensor:
        block = torch.randn(rows, columns, generator=generator, device=device) / columns**0.5
        block = torch.where(block.abs() < 1e-6, 1e-6, block).bfloat16()
        weights = torch.empty(count, rows, columns, dtype=torch.bfloat16, device=device)
        for expert in range(count):
            torch.mul(block, 1 + expert / count, out=weights[expert])
        return weights

    return tiled(2 * inner, hidden), tiled(hidden, inner)
