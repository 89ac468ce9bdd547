"""A soak's page says what was left and what was missed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from loadtest import soaked

HELD = {
    "handles": {"http": 45},
    "threads": {"http": 22},
    "load": {"num_running_reqs": 0},
    "rss": {"http": 1268.0},
}
RECORD: dict[str, Any] = {
    "requests": 100,
    "concurrency": [16, 32],
    "warm_up": 20,
    "seconds": 10.0,
    "requests_per_s": 10.0,
    "output_tokens_per_s": 99.0,
    "endings": {"refused": 6, "answered": 114},
    "greedy_the_same": False,
    "slopes_mib_per_1000": {"http": {"per_1000": 1.5, "error": 0.01}},
    "before": HELD,
    "after": {**HELD, "handles": {"http": 60}},
    "missed": ["greedy answers differ", "http: handles 45 -> 60"],
    "samples": [{"requests": n, "seconds": n, "rss": {"http": 1268.0 + n}} for n in range(3)],
    "command": "python -m loadtest soak",
    "machine": {"name": "m", "processor": "p", "cores": 2, "memory_gib": 24},
    "versions": {"python": "3"},
}


def test_the_page_and_the_picture(tmp_path: Path) -> None:
    page = soaked.markdown(RECORD)
    assert "114 answered, 6 refused" in page
    assert "NOT the same" in page
    assert "Missed: greedy answers differ; http: handles 45 -> 60." in page
    assert "| http | 1268 | 1268 | +1.50 ± 0.01 | 45 → 60 | 22 → 22 |" in page
    soaked.draw(RECORD, tmp_path / "soak.png")
    assert (tmp_path / "soak.png").read_bytes().startswith(b"\x89PNG")


def test_beside_sglang_without_us(tmp_path: Path) -> None:
    plain = {
        **RECORD,
        "requests": 40,
        "slopes_mib_per_1000": {"http": {"per_1000": 0.4, "error": 0.02}},
    }
    as_far = {"http": {"per_1000": 0.6, "error": 0.03}}
    record = {**RECORD, "blocks": 10, "beside": plain, "slopes_as_far_mib_per_1000": as_far}
    page = soaked.markdown(record)
    assert "in 10 turns with SGLang without us" in page
    assert "| ours, http | 1268 | 1268 | +1.50 ± 0.01 |" in page
    assert "| ours, http, the first 40 |  |  | +0.60 ± 0.03 |" in page
    assert "| without us, http | 1268 | 1268 | +0.40 ± 0.02 |" in page
    soaked.draw(record, tmp_path / "soak.png")
    assert (tmp_path / "soak.png").stat().st_size > 10_000
