"""GPUs as SGLang sees them. A fact that is not here is not known, and said so
(`judgement.ONLY_THERE`)."""

from __future__ import annotations

from typing import NamedTuple


class Card(NamedTuple):
    """One GPU, and the machine it comes in."""

    name: str
    """`torch.cuda.get_device_name()`."""
    capability: tuple[int, int]
    memory: int
    """MiB, as nvidia-smi says: SGLang asks it for that."""
    processors: int
    """Streaming multiprocessors."""
    in_one: int
    """GPUs in one machine."""
    source: str

    @property
    def sm(self) -> int:
        return self.capability[0] * 10 + self.capability[1]


CARDS = {
    "h100": Card(
        "NVIDIA H100 80GB HBM3",
        (9, 0),
        81559,
        132,
        8,
        "nvidia-smi of an HGX H100; NVIDIA's H100 architecture paper",
    ),
    "h200": Card(
        "NVIDIA H200", (9, 0), 143771, 132, 8, "nvidia-smi of an HGX H200; the die is the H100's"
    ),
    "b200": Card(
        "NVIDIA B200", (10, 0), 183359, 148, 8, "nvidia-smi and deviceQuery of a DGX B200"
    ),
    "b300": Card(
        "NVIDIA B300 SXM6 AC",
        (10, 3),
        275040,
        148,
        8,
        "nvidia-smi of an HGX B300; SMs as the B200's",
    ),
    "gb200": Card(
        "NVIDIA GB200",
        (10, 0),
        189471,
        152,
        4,
        "nvidia-smi of a GB200 NVL72 tray; SMs: SGLang's cutedsl_common.py",
    ),
    "gb300": Card(
        "NVIDIA GB300",
        (10, 3),
        284208,
        152,
        4,
        "nvidia-smi of a GB300 NVL72 tray; SMs as the GB200's",
    ),
    "rtx6000": Card(
        "NVIDIA RTX PRO 6000 Blackwell Server Edition",
        (12, 0),
        97887,
        188,
        8,
        "nvidia-smi of an RTX PRO 6000 server; NVIDIA's RTX Blackwell PRO architecture paper",
    ),
}
"""A name on the command line -> the card. Compute capabilities: developer.nvidia.com/cuda-gpus."""
