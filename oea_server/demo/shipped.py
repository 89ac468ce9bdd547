"""The demo model that ships, trained by `oea_server.demo.training`, and text that it has never seen."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from oea_server.demo.build import CONFIG

MODEL = Path(__file__).parent / "model"
HELD_OUT = Path(__file__).parent / "held_out.jsonl"

SHAPE: Mapping[str, Any] = {
    **CONFIG,
    "hidden_size": 192,
    "moe_intermediate_size": 32,
    "intermediate_size": 256,
    "rope_theta": 10000.0,
}
"""22 MB in bfloat16: what a repository can carry."""
