"""Write results/README.md: what the records under results/ say, machine by machine, and nothing else.

.venv/bin/python benchmarks/index.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from oea_server.bench.report import micro, ratio, table

RESULTS = Path(__file__).parent / "results"
PAPER_BATCH = 16


def index(results: Path) -> str:
    """The page for all `results`/<machine>/*.json."""
    lines = ["# Results", "", "Made by `python benchmarks/index.py` from the JSON beside it; every row links its page."]
    for folder in sorted(path for path in results.iterdir() if path.is_dir()):
        records = {path: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
        of = {
            kind: {p: r for p, r in records.items() if r.get("benchmark") == kind}
            for kind in ("moe", "serve", "router")
        }
        lines += ["", f"## {folder.name}"]
        for kind, show in (("moe", _moe), ("serve", _serve), ("router", _router)):
            if of[kind]:
                lines += ["", *show({f"[{p.stem}]({folder.name}/{p.stem}.md)": r for p, r in of[kind].items()})]
    return "\n".join(lines) + "\n"


def _moe(records: dict[str, dict[str, Any]]) -> list[str]:
    """One MoE layer at the paper's batch size, vanilla against OEA."""
    header = [
        "one MoE layer, 16 tokens",
        "T",
        "vanilla, µs",
        "policy",
        "T",
        "µs",
        "over vanilla",
        "over the floor",
        "routing",
        "R²",
    ]
    rows = []
    for link, record in records.items():
        at = {row["policy"]: row for row in record["rows"] if row["batch"] == PAPER_BATCH}
        fit = next((each for each in record["fits"] if each["batch"] == PAPER_BATCH), {"r2": None})
        for name, row in at.items():
            if name.startswith("oea") and "vanilla" in at:
                rows.append(
                    [
                        link,
                        f"{at['vanilla']['unique_experts']:.1f}",
                        micro(at["vanilla"]["latency_us"]),
                        name,
                        f"{row['unique_experts']:.1f}",
                        micro(row["latency_us"]),
                        ratio(row["over_vanilla"]),
                        ratio(row["latency_us"] / row["floor_us"]),
                        f"{100 * row['routing_share']:.1f} %",
                        "–" if fit["r2"] is None else f"{fit['r2']:.4f}",
                    ]
                )
    return table(header, rows)


def _serve(records: dict[str, dict[str, Any]]) -> list[str]:
    header = ["live server", "requests", "policy", "T", "TPOT, ms", "over vanilla", "tokens/s", "mass kept"]
    rows = [
        [
            link,
            str(row["batch"]),
            row["policy"],
            f"{row['unique_experts']:.1f}",
            micro(row["tpot_ms"]),
            ratio(row["tpot_over_vanilla"]),
            f"{row['tokens_per_s']:.1f}",
            f"{row['mass_kept']:.3f}",
        ]
        for link, record in records.items()
        for row in record["rows"]
    ]
    return table(header, rows)


def _router(records: dict[str, dict[str, Any]]) -> list[str]:
    header = ["routing, 128 experts, 16 tokens", "router", "policy", "µs", "over"]
    rows = [
        [
            link,
            row["router"],
            row["policy"],
            micro(row["latency_us"]),
            f"{ratio(row['over_reference'])} × {record['reference']}",
        ]
        for link, record in records.items()
        for row in record["rows"]
        if (row["experts"], row["batch"]) == (128, PAPER_BATCH)
    ]
    return table(header, rows)


if __name__ == "__main__":
    (RESULTS / "README.md").write_text(index(RESULTS))
