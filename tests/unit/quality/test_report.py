"""The page and the picture say what the record says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from oea_server.lab.quality import picture, report


def row(arm: str, unique: float, increase: float, over: float | None = None) -> dict[str, Any]:
    return {
        "arm": arm,
        "kind": arm.partition(":")[0],
        "batch": 16,
        **{name: [1.0, 0.9, 1.1] for name in ("loss", "kl", "agreement", "kept")},
        "unique": [unique, unique, unique],
        "increase": [increase, increase - 0.001, increase + 0.001],
        "busiest": {"8": [3.0, 3.0, 3.0]},
        "over_oea": {"unique": None if over is None else [over, 0.4, 0.6], "8": None},
    }


ROWS = [
    row("vanilla", 70, 0.0),
    row("oea:2", 20, 0.08),
    row("oea:3", 40, 0.02),
    row("share:0.1", 30, 0.02, 0.5),
]
RECORD = {
    "model": {"name": "a model"},
    "text": {"name": "a text", "sequences": 8, "length": 12, "order": "mixed"},
    "seed": 0,
    "ranks": [8],
    "batches": [16],
    "rows": ROWS,
    "command": "oea-server eval",
    "machine": {"name": "m", "processor": "p", "cores": 2, "memory_gib": 24},
    "versions": {"python": "3"},
}


def test_the_page_and_the_picture(tmp_path: Path) -> None:
    page = report.markdown(json.loads(json.dumps(RECORD)))
    assert (
        "| share:0.1 | 30.0 | 3.0 | +0.0200 | +0.0190 to +0.0210 | 0.50 (0.40 to 0.60) | – |"
        in page
    )
    picture.draw(RECORD, tmp_path / "eval.png")
    assert (tmp_path / "eval.png").read_bytes().startswith(b"\x89PNG")
