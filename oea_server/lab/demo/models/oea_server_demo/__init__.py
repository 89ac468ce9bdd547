"""Two Mixture-of-Experts models of 22 and 23 MB, trained by `oea_server.lab.demo.training`, and
text that neither has seen."""

from __future__ import annotations

from pathlib import Path

MODEL = Path(__file__).parent / "qwen3_moe"
"""Qwen3-MoE's architecture: what `oea-server serve` takes when no model is named."""
GLM4_MOE = Path(__file__).parent / "glm4_moe"
"""GLM-4.5's: a sigmoid router with a selection bias, a shared expert, a layer that guesses the
token after the next."""
HELD_OUT = Path(__file__).parent / "held_out.jsonl"
