"""A record: what was measured, on which machine, with which versions, seed and command."""

from __future__ import annotations

import os
import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

Record = dict[str, Any]

PACKAGES = (
    "oea-server",
    "sglang",
    "torch",
    "transformers",
    "triton",
    "zentorch",
    "flashinfer-python",
    "numpy",
)
VENDORS = re.compile(r"\b(nvidia|amd|geforce|tesla)\b", re.IGNORECASE)
CPU_INFO = Path("/proc/cpuinfo")


def machine(device: torch.device) -> dict[str, Any]:
    """The machine, without anything that names whose it is. `name` is the results' folder."""
    facts: dict[str, Any] = {
        "name": f"{os.cpu_count()}-core-{platform.machine()}",
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        facts["name"] = slug(properties.name)
        facts["gpu"] = properties.name
        facts["gpu_memory_gib"] = round(properties.total_memory / 2**30)
        facts["gpu_capability"] = f"{properties.major}.{properties.minor}"
        facts["cuda"] = torch.version.cuda
    return facts


def slug(gpu: str) -> str:
    """``NVIDIA H200`` -> ``h200``."""
    return re.sub(r"[^a-z0-9]+", "-", VENDORS.sub("", gpu).lower()).strip("-")


def processor() -> str:
    """The CPU's own name where the system tells it."""
    if CPU_INFO.exists():
        match = re.search(r"^model name\s*:\s*(.+)$", CPU_INFO.read_text(), re.MULTILINE)
        if match:
            return match[1].strip()
    return platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Of Python and of the packages that matter, those that are installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def default_folder(device: torch.device) -> Path:
    """``benchmarks/results/<machine>`` below the current directory."""
    return Path("benchmarks") / "results" / str(machine(device)["name"])
