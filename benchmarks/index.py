"""The table over all records under results/, machine by machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.kinds import records
from benchmarks.pages import COMMAND, place
from oea_server.lab.records.tables import micro, percent, ratio, table

PAPER_BATCH = 16


def index(results: Path) -> str:
    """The page for all `results`/<machine>/*.json."""
    lines = [
        "# Results",
        "",
        f"Made by `{COMMAND}` from the JSON beside it; every row links its page.",
    ]
    for folder in sorted(path for path in results.iterdir() if path.is_dir()):
        found = records(folder)
        lines += ["", f"## {folder.name}"]
        for kind, show in SHOWN.items():
            of = {
                f"[{name}]({folder.name}/{place(name)})": record
                for name, record in found.items()
                if record["benchmark"] == kind
            }
            if of:
                lines += ["", *show(of)]
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
    header = [
        "live server",
        "requests",
        "policy",
        "T",
        "TPOT, ms",
        "over vanilla",
        "tokens/s",
        "mass kept",
    ]
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


def _tiers(records: dict[str, dict[str, Any]]) -> list[str]:
    header = [
        "exact requests among others",
        "share",
        "T",
        "mass kept, auto",
        "TPOT auto, ms",
        "over vanilla",
    ]
    rows = []
    for link, record in records.items():
        for row in record["rows"]:
            kept, tpot = row["mass_kept"]["auto"], row["tpot_ms"]["auto"]
            share = (
                "vanilla" if row["share"] == "vanilla" else f"{row['share']} % of {record['chats']}"
            )
            cells = [
                "–" if kept is None else f"{kept:.4f}",
                "–" if tpot is None else micro(tpot[0]),
            ]
            rows.append(
                [
                    link,
                    share,
                    f"{row['unique_experts']:.1f}",
                    *cells,
                    ratio(row["tpot_over_vanilla"]),
                ]
            )
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


def _ab(records: dict[str, dict[str, Any]]) -> list[str]:
    """What of an A/B matters most, and what was significant."""
    rows = []
    for link, record in records.items():
        for row in record["rows"]:
            if row["name"] in AB_MEASURES:
                span = (
                    "–"
                    if row["ratio"] is None
                    else f"{row['ratio']:.3f} ({row['ratio_low']:.3f}–{row['ratio_high']:.3f})"
                )
                cells = [f"{row[arm]:.4g}" for arm in ("a", "b")]
                rows.append(
                    [link, row["name"], *cells, span, "yes" if row["significant"] else "no"]
                )
    return table(
        ["A/B on a live server", "measure", "A", "B", "B over A (95 %)", "significant"], rows
    )


def _steer(records: dict[str, dict[str, Any]]) -> list[str]:
    """Who keeps target and floor under steps of load."""
    header = [
        "steps of load",
        "what serves",
        "target, ms",
        "spans",
        "late",
        "below the floor",
        "mass kept",
        "tokens",
    ]
    rows = [
        [
            link,
            row["side"],
            f"{1e3 * record['plan']['target']:.0f}",
            *(str(row[name]) for name in ("spans", "late", "poor")),
            f"{row['mass_kept']:.3f}",
            str(row["tokens"]),
        ]
        for link, record in records.items()
        for row in record["rows"]
    ]
    return table(header, rows, names=2)


def _compare(records: dict[str, dict[str, Any]]) -> list[str]:
    rows = []
    for link, record in records.items():
        judged = [row for row in record["rows"] if row["judged"]]
        ratios = [row["ratio"] for row in judged]
        agreed = sum(row["agrees"] for row in judged)
        rows.append(
            [link, f"{min(ratios):.3f} to {max(ratios):.3f}", f"{agreed} of {len(judged)} figures"]
        )
    return table(["Locust over SGLang's client", "ratios", "within 5 %"], rows)


def _soak(records: dict[str, dict[str, Any]]) -> list[str]:
    rows = []
    for link, record in records.items():
        slopes = ", ".join(
            f"{role} {each['per_1000']:+.2f}"
            for role, each in record["slopes_mib_per_1000"].items()
        )
        missed = "; ".join(record["missed"]) or "nothing"
        rows.append(
            [link, str(record["requests"]), f"{record['requests_per_s']:.1f}", slopes, missed]
        )
    return table(["soak", "requests", "a second", "MiB per 1000 requests", "missed"], rows)


def _chaos(records: dict[str, dict[str, Any]]) -> list[str]:
    rows = [
        [link, outcome["fault"], outcome["verdict"], f"{outcome['seconds']:.1f}"]
        for link, record in records.items()
        for outcome in record["outcomes"]
    ]
    return table(["faults", "fault", "verdict", "s"], rows, names=3)


def _eval(records: dict[str, dict[str, Any]]) -> list[str]:
    """Quality at the paper's batch size."""
    rows = [
        [
            link,
            row["arm"],
            f"{row['unique'][0]:.1f}",
            "{:+.4f} ({:+.4f} to {:+.4f})".format(*row["increase"]),
        ]
        for link, record in records.items()
        for row in record["rows"]
        if row["batch"] == PAPER_BATCH
    ]
    return table(
        ["quality, 16 tokens", "policy", "T", "increase in cross-entropy, nats (95 %)"],
        rows,
        names=2,
    )


def _harnesses(records: dict[str, dict[str, Any]]) -> list[str]:
    """One server's accuracy by two harnesses."""
    header = [
        "two harnesses, one server",
        "arm",
        "qualify",
        "lm-eval",
        "same task by task",
        "agree",
    ]
    rows = []
    for link, record in records.items():
        for row in record["rows"]:
            right = [
                f"{row[each]:.3f} ± {row[f'{each}_error']:.3f}" for each in ("qualify", "lm_eval")
            ]
            same, agree = percent(row["same_task_by_task"]), "yes" if row["agree"] else "no"
            rows.append([link, row["arm"], *right, same, agree])
    return table(header, rows, names=2)


def _calibrate(records: dict[str, dict[str, Any]]) -> list[str]:
    """Rungs that a search found."""
    rows = []
    for link, record in records.items():
        for rung in record["rungs"]:
            shares = rung["experts"]
            share = shares.get(str(PAPER_BATCH)) if isinstance(shares, dict) else shares
            numbers = [f"{rung['nats']:.4f}", f"{rung['mass_kept']:.3f}", ratio(share)]
            rows.append(
                [
                    link,
                    rung["name"],
                    " ".join(f"{k}={v}" for k, v in rung["knobs"].items()),
                    *numbers,
                ]
            )
    header = [
        "rungs found",
        "rung",
        "knobs",
        "loss at most, nats",
        "least mass kept",
        "T of vanilla's, 16 tokens",
    ]
    return table(header, rows, names=3)


AB_MEASURES = ("ttft_p50", "tpot_p50", "tpot_p99", "tokens_per_s", "unique_experts", "mass_kept")


def _qualify(records: dict[str, dict[str, Any]]) -> list[str]:
    """What generated answers said of each candidate, and what it bought."""
    header = [
        "qualify",
        "candidate",
        "prompts",
        "vanilla right",
        "right",
        "difference, points (95%)",
    ]
    header += [
        "margin",
        "verdict",
        "T over vanilla",
        "TPOT over vanilla",
        "tokens per answer over vanilla",
    ]
    rows = []
    for link, record in records.items():
        for name, verdict in record["verdicts"].items():
            seen, arms = (
                verdict["difference"],
                [verdict[arm]["right"] for arm in ("vanilla", "candidate")],
            )
            told = [f"{100 * seen[end]:+.1f}" for end in ("value", "low", "high")] if seen else []
            rows.append(
                [
                    *(link, name, f"{verdict['candidate']['prompts']:,}"),
                    *("–" if right is None else f"{right['value']:.1%}" for right in arms),
                    "{} ({} to {})".format(*told) if told else "–",
                    *(f"{record['plan']['margin']:g}", verdict["verdict"]),
                    *(_middle(verdict["cost"][name]["ratio"]) for name in ("unique", "tpot")),
                    _middle(verdict["longer"]),
                ]
            )
    return table(header, rows, names=2)


def _middle(found: dict[str, float] | None) -> str:
    return ratio(None if found is None else found["value"])


SHOWN = {
    "moe": _moe,
    "serve": _serve,
    "tiers": _tiers,
    "router": _router,
    "ab": _ab,
    "steer": _steer,
    "compare": _compare,
    "soak": _soak,
    "chaos": _chaos,
    "eval": _eval,
    "harnesses": _harnesses,
    "calibrate": _calibrate,
    "qualify": _qualify,
}
