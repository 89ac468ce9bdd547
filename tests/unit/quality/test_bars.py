"""What a share and a mixture lose over plain OEA, by the committed record: the bars, and the page
that shows it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from oea_server.lab.quality import gate

ROOT = Path(__file__).parents[3]
RECORD = ROOT / "benchmarks/results/2-core-x86_64/eval-share.json"
SHARES = ("0.08", "0.1", "0.13", "0.16")


@pytest.fixture(scope="module")
def rows() -> dict[str, dict[str, Any]]:
    return {row["arm"]: row for row in json.loads(RECORD.read_text())["rows"]}


@pytest.mark.parametrize("share", SHARES)
def test_both_rules_hold_their_bar_with_intervals_apart_by_what_serves(
    rows: dict[str, dict[str, Any]], share: str
) -> None:
    bars = dict(gate.BARS.values())
    for arm, what, most in (
        (f"oea:8/share={share}/mix=0.5", "unique", bars["unique"]),
        (f"fill:8/ranks=8/share={share}/mix=0.5", "8", bars["busiest"]),
    ):
        over, _, high = rows[arm]["over_oea"][what]
        assert over <= most
        assert high < 1
        assert rows[arm]["routing"] == "host"


def test_the_page_shows_the_record(rows: dict[str, dict[str, Any]]) -> None:
    page = (ROOT / "docs/quality-results.md").read_text(encoding="utf-8")
    for share in SHARES:
        plain, filled = (
            rows[f"oea:8/share={share}/mix=0.5"],
            rows[f"fill:8/ranks=8/share={share}/mix=0.5"],
        )
        said = [
            f"{float(share):.2f}",
            f"{plain['unique'][0]:.1f}",
            "{:.2f} ({:.2f} to {:.2f})".format(*plain["over_oea"]["unique"]),
            f"{filled['busiest']['8'][0]:.1f}",
            "{:.2f} ({:.2f} to {:.2f})".format(*filled["over_oea"]["8"]),
        ]
        assert f"| {' | '.join(said)} |" in page


def test_the_page_shows_what_carries_over_to_the_second_model() -> None:
    page = (ROOT / "docs/quality-results.md").read_text(encoding="utf-8")
    of = {
        name: {
            row["arm"]: row["over_oea"]
            for row in json.loads(RECORD.with_name(f"{name}.json").read_text())["rows"]
        }
        for name in ("eval-glm4-moe-rules", "eval-glm4-moe-share")
    }
    rules, served = of.values()
    both = [rules[f"share:{tau}/mix=0.5"]["unique"] for tau in ("0.1", "0.13", "0.16", "0.2")]
    filled = served["fill:8/ranks=8/share=0.13/mix=0.5"]["8"]
    for ratios in ([rules["oea:3/mix=0.5"]["unique"]], both, [filled]):
        assert ", ".join("{:.2f} ({:.2f} to {:.2f})".format(*each) for each in ratios) in page
        assert all(high < 1 for _, _, high in ratios)
