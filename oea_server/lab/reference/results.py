"""The README's table of results, each row from its record."""

from __future__ import annotations

import json
import re
from typing import Any

from oea_server.lab.reference.page import DOCS

ROOT = DOCS.parent
PAGE = ROOT / "README.md"
RECORDS = "benchmarks/results/2-core-x86_64"
OEA, PRUNED, FILLED = "oea:3", "pruned:3", "fill:3/ranks=8"
BATCH = 16

Row = dict[str, Any]


def entries() -> list[str]:
    """The table."""
    lines = [
        f"| 2-core CPU, {BATCH} requests at once, k0 = 3 | vanilla | OEA |",
        "|---|---:|---:|",
        *layer(),
        *server(),
        *loss(),
        *ranks(),
        *commands(),
    ]
    return [*lines, ""]


def record(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        (ROOT / RECORDS / f"{name}.json").read_text(encoding="utf-8")
    )
    return found


def rows(name: str, by: str) -> dict[str, Row]:
    """A record's rows of the batch, by policy or arm."""
    return {row[by]: row for row in record(name)["rows"] if row["batch"] == BATCH}


def linked(what: str, name: str) -> str:
    """A link to the record's section of the page that `python -m benchmarks` makes."""
    return f"[{what}]({RECORDS}/{name.partition('-')[0]}.md#{name})"


def layer() -> list[str]:
    found = rows(name := "moe-qwen3-30b", "policy")
    vanilla, ours = found["vanilla"], found[OEA]
    return [
        (
            f"| {linked('one MoE layer of Qwen3-30B', name)}: experts read (T) | "
            f"{vanilla['unique_experts']:.1f} | {ours['unique_experts']:.1f} |"
        ),
        f"| the same layer's time | 1 | {ours['over_vanilla']:.2f} |",
    ]


def server() -> list[str]:
    found = rows(name := "serve-qwen3-30b-4-layers", "policy")
    return [
        f"| {linked('a live server', name)}, four such layers: time per output token | 1 | "
        f"{found[OEA]['tpot_over_vanilla']:.2f} |"
    ]


def loss() -> list[str]:
    found = rows(name := "eval", "arm")
    ours, pruned = found[OEA], found[PRUNED]
    return [
        (
            f"| {linked('our trained demo model', name)}: loss, nats per token |"
            f" {found['vanilla']['loss'][0]:.3f} | {ours['loss'][0]:.3f} |"
        ),
        f"| the same, top-3 pruning, which reads as much | | {pruned['loss'][0]:.3f} |",
    ]


def ranks() -> list[str]:
    found = rows(name := "eval-ranks", "arm")
    vanilla, filled = found["vanilla"], found[FILLED]
    before, after = (each["busiest"]["8"][0] for each in (vanilla, filled))
    return [
        (
            f"| {linked('the demo model on eight ranks', name)}: experts on the busiest |"
            f" {before:.1f} | {after:.1f} |"
        ),
        f"| the same: loss, nats per token | {vanilla['loss'][0]:.3f} | {filled['loss'][0]:.3f} |",
    ]


def commands() -> list[str]:
    said = re.search(
        r"Of (\d+) commands (\d+) are routed", (DOCS / "coverage.md").read_text(encoding="utf-8")
    )
    assert said is not None
    return [
        f"| [public serving commands](docs/coverage.md) that would be routed | | {said[2]} of"
        f" {said[1]} |"
    ]
