"""The demo model that ships, trained by `oea_server.lab.demo.training`, and text that it has never seen."""

from __future__ import annotations

from pathlib import Path

DEMO = Path(__file__).parent / "lab" / "demo"
MODEL = DEMO / "model"
HELD_OUT = DEMO / "held_out.jsonl"
