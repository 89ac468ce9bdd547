"""`bench serve --tiers`: who of a round is exact, and the page and picture made from its record."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from oea_server.cli import app
from oea_server.client.remote import Remote
from oea_server.lab.bench import report, tiered
from oea_server.lab.bench.load import Ask, Load
from oea_server.lab.bench.tiered import Rounds, _row
from tests.heard import Heard, hearing

METRICS = """# TYPE oea_tier_sampled_tokens counter
oea_tier_sampled_tokens_total{tier="exact"} 10.0
oea_tier_sampled_tokens_total{tier="auto"} 20.0
# TYPE oea_tier_kept_router_mass counter
oea_tier_kept_router_mass_total{tier="exact"} 10.0
oea_tier_kept_router_mass_total{tier="auto"} 19.0
"""


def rounds(experts: float, tpot: list[float], kept: dict[str, list[float]]) -> Rounds:
    loads = [
        Load([0.1] * 4, [each * speed for each in tpot], [0.1], 20.0) for speed in (1.0, 2.0, 3.0)
    ]
    return Rounds(loads, [experts] * 3, [0.1, 0.2, 0.3], kept)


def test_what_a_tier_kept_is_read_off_the_servers_metrics() -> None:
    with hearing(Heard(answer=METRICS.encode())) as server:
        assert tiered.tier_sums(Remote(server.url)) == {"exact": (10.0, 10.0), "auto": (20.0, 19.0)}


def test_the_first_of_a_round_are_exact_and_each_tier_is_timed_by_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[Ask] = []

    def play(url: str, chats: int, tokens: int, key: str | None, asks: Any) -> Load:
        asked.extend(asks(place) for place in range(chats))
        return Load([0.1] * chats, [0.1] * chats, [0.1], 20.0)

    names = ("oea_unique_experts_sum", "oea_unique_experts_count", "oea_decode_step_seconds_sum")
    said = iter(
        [dict.fromkeys((*names, "oea_decode_step_seconds_count"), value) for value in (0.0, 4.0)]
    )
    sums = iter([{}, {"auto": (20.0, 19.0)}])
    monkeypatch.setattr(tiered, "play", play)
    monkeypatch.setattr(tiered, "tier_sums", lambda server: next(sums))
    server: Any = SimpleNamespace(url="", key=None, settled_metrics=lambda: next(said))
    kept = Rounds()
    tiered._round(server, 4, 1, 8, kept)
    assert [each.tier for each in asked] == ["exact", "auto", "auto", "auto"]
    assert len({each.prompt for each in asked}) == 4
    assert kept.mass_kept == {"exact": [], "auto": [0.95]}


def test_the_page_and_the_picture_say_what_was_measured(tmp_path: Path) -> None:
    vanilla = rounds(60.0, [0.2] * 4, {"exact": [], "auto": [1.0] * 3})
    mixed = rounds(40.0, [0.16, 0.1, 0.1, 0.1], {"exact": [1.0] * 3, "auto": [0.9, 0.95, 0.99]})
    whole = rounds(60.0, [0.2] * 4, {"exact": [1.0] * 3, "auto": []})
    found = [("vanilla", 0, vanilla), ("25", 1, mixed), ("100", 4, whole)]
    rows = [_row(label, exact, 4, each, vanilla, 50.0) for label, exact, each in found]
    assert rows[1]["tpot_ms"]["exact"] == pytest.approx([320, 240, 400])
    assert rows[1]["tpot_ms"]["auto"] == pytest.approx([200, 150, 250])
    assert rows[1]["tpot_over_vanilla"] == pytest.approx(0.46 / 0.8)
    assert rows[2]["tpot_ms"]["auto"] is rows[2]["mass_kept"]["auto"] is None
    record = {
        **{
            "benchmark": "tiers",
            "command": "oea-server bench serve --tiers",
            "versions": {},
            "rows": rows,
        },
        **{
            "machine": {"name": "m", "processor": "p", "cores": 2, "memory_gib": 1},
            "bandwidth": {"gb_per_s": 10.0},
        },
        **{"model": {"name": "demo", "layers": 2, "bytes_per_expert": 1e6}, "chats": 4, "k0": 3},
        **{"tokens": 8, "repeats": 3, "seed": 0},
    }
    paths = report.save(json.loads(json.dumps(record)), tmp_path, "tiers")
    page = paths[1].read_text()
    assert "| 25 % (1) | 40.0 | 1.0000 | 0.9500 | 320 (240–400) | 200 (150–250) | 0.57 |" in page
    assert "| 100 % (4) | 60.0 | 1.0000 | – |" in page
    assert paths[2].stat().st_size > 10_000


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (
            ("--speculative",),
            "--tiers: on a server that is started here, and without --speculative",
        ),
        (
            ("--url", "http://127.0.0.1:1"),
            "--tiers: on a server that is started here, and without --speculative",
        ),
        (
            ("--policies", "vanilla"),
            "--tiers: --policies names no oea:K0 for the requests that are not exact",
        ),
    ],
)
def test_what_does_not_go_with_it_is_one_line(flags: tuple[str, ...], line: str) -> None:
    done = CliRunner().invoke(app, ["bench", "serve", "--tiers", *flags])
    assert done.exit_code == 2
    assert line in done.output
