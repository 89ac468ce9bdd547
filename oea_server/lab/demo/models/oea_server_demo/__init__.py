"""A Mixture-of-Experts model of 22 MB, trained by `oea_server.lab.demo.training`, and text that it has never seen."""

from __future__ import annotations

from pathlib import Path

MODEL = Path(__file__).parent / "qwen3_moe"
HELD_OUT = Path(__file__).parent / "held_out.jsonl"
