"""Markdown from a record, and from nothing else."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from oea_server.lab.bench import served_page, tiers_page, worth
from oea_server.lab.records import files
from oea_server.lab.records.record import Record
from oea_server.lab.records.tables import NONE, made_by, micro, ratio, spread, table


def save(record: Record, folder: Path, name: str) -> list[Path]:
    """Write `name`.json, and from it .md and, where matplotlib is installed, .png. Returns the
    files."""
    paths = [folder / f"{name}.json", folder / f"{name}.md", folder / f"{name}.png"]
    record = files.write(paths[0], record)
    paths[1].write_text(markdown(record), encoding="utf-8")
    if find_spec("matplotlib") is None:
        return paths[:2]
    from oea_server.lab.bench.plot import draw

    draw(record, paths[2])
    return paths


def markdown(record: Record) -> str:
    """The whole page of a record, ready to be kept or printed."""
    body = {"moe": _moe, "router": _router, "serve": served_page.lines, "tiers": tiers_page.lines}[
        record["benchmark"]
    ]
    return "\n".join([*body(record), "", *_provenance(record), ""])


def _moe(record: Record) -> list[str]:
    preset, logits, bandwidth = record["preset"], record["logits"], record["bandwidth"]
    lines = [
        f"# One layer of {preset['name']}, routing included: {record['machine']['name']}",
        "",
        (
            f"{preset['note']}. {preset['num_experts']} experts, top {preset['k']}, hidden"
            f" {preset['hidden']}, expert width {preset['intermediate']}, bfloat16:"
            f" {preset['expert_bytes'] / 1e6:.2f} MB an expert, of which this device holds"
            f" {preset['local_experts']}. Logits: {logits['kind']} ({logits['what']}). Experts:"
            f" {record['experts']['kind']} ({record['experts']['why']}). Routing:"
            f" {', '.join(record['routing'])}, with its tally."
        ),
        "",
        (
            f"Memory reads at {bandwidth['gb_per_s']:.1f} GB/s ({bandwidth['way']}; median of"
            f" {bandwidth['reads']} reads of {bandwidth['bytes'] / 2**30:.0f} GiB between the"
            f" turns), so one expert takes {micro(record['memory_us_per_expert'])} µs at least."
            f" Times are medians of {record['repeats']} turns, with quartiles. OEA at batch 1 is"
            " vanilla."
        ),
        "",
        *([*worth.lines(record), ""] if fitted_as_now(record) else []),
        "## Policies",
        "",
    ]
    expert_parallel = preset["ranks"] > 1
    header = [
        "policy",
        "batch",
        "experts",
        "layer, µs",
        "over vanilla",
        "routing, µs",
        "routing's share",
        "floor, µs",
    ]
    if expert_parallel:
        header[3:3] = ["busiest rank", "all ranks"]
    if expert_parallel and fitted_as_now(record):
        header.append("busiest, µs")
    lines += table(header, (_moe_row(row, expert_parallel) for row in record["rows"]))
    lines += [
        "",
        "## Latency against experts",
        "",
        _line_through(record),
        "",
        *table(
            ["batch", "slope, µs per expert", "memory, µs per expert", "intercept, µs", "R²"],
            (
                [
                    str(each["batch"]),
                    micro(each["slope_us"]),
                    micro(each["memory_us_per_expert"]),
                    NONE if each["intercept_us"] is None else f"{each['intercept_us']:.1f}",
                    NONE if each["r2"] is None else f"{each['r2']:.4f}",
                ]
                for each in record["fits"]
            ),
        ),
    ]
    return lines + _beside_paper(record)


def fitted_as_now(record: Record) -> bool:
    """Whether the line of a layer is through what it is through today: of one rank of several,
    single turns. An older record's is through policies' medians, and says nothing of the busiest
    rank."""
    return record["preset"]["ranks"] == 1 or "busiest_us" in record["rows"][0]


def _line_through(record: Record) -> str:
    if record["preset"]["ranks"] > 1 and fitted_as_now(record):
        return (
            "Least squares at one batch size over single turns (not of pruned policies), T being"
            " the experts that this rank read in each; R² has their noise in it. Busiest, µs: what"
            " it says of as many as the busiest rank reads, for which the layer waits."
        )
    reads = "this rank" if record["preset"]["ranks"] > 1 else "the step"
    return (
        "Least squares over vanilla, random and OEA at one batch size. T is the experts that"
        f" {reads} reads."
    )


def _moe_row(row: Record, expert_parallel: bool) -> list[str]:
    cells = [
        row["policy"],
        str(row["batch"]),
        f"{row['unique_experts']:.1f}",
        spread(row["latency_us"], row["latency_us_quartiles"]),
        ratio(row["over_vanilla"]),
        micro(row["routing_us"]),
        f"{100 * row['routing_share']:.1f} %",
        micro(row["floor_us"]),
    ]
    if expert_parallel:
        cells[3:3] = [
            f"{row['unique_experts_busiest_rank']:.1f}",
            f"{row['unique_experts_all_ranks']:.1f}",
        ]
        if "busiest_us" in row:
            cells.append(micro(row["busiest_us"]))
    return cells


def _beside_paper(record: Record) -> list[str]:
    rows, published = record["beside_paper"], record["paper"]
    if not rows:
        return []
    fitted = record["logits"].get("fitted_to_k0", [])
    simulated = record["logits"].get("experts", {})
    how = (
        f" The logits were fitted to its T at k0 = {fitted[0]} and vanilla; the other T follow."
        if fitted
        else " The logits were not made to reproduce its T."
    )
    return [
        "",
        f"## Beside the paper, batch {published['batch']}",
        "",
        (
            f"The paper's columns are {published['source']}'s ({published['model']},"
            f" {published['setup']}), not measured here.{how} Ours at paper's T: what our line says"
            " there, over the same for vanilla."
        ),
        "",
        *table(
            [
                "policy",
                "T",
                "T, simulated",
                "T, paper",
                "over vanilla",
                "ours at paper's T",
                "over vanilla, paper",
            ],
            (
                [
                    row["policy"],
                    f"{row['unique_experts']:.1f}",
                    f"{simulated[_k0(row)]:.1f}" if _k0(row) in simulated else NONE,
                    f"{row['paper_experts']:.1f}",
                    ratio(row["over_vanilla"]),
                    ratio(row["over_vanilla_at_paper_experts"]),
                    ratio(row["paper_over_vanilla"]),
                ]
                for row in rows
            ),
        ),
    ]


def _k0(row: Record) -> str:
    return "8" if row["policy"] == "vanilla" else str(row["policy"].partition(":")[2])


def _router(record: Record) -> list[str]:
    lines = [
        f"# Routers on the same logits: {record['machine']['name']}",
        "",
        (
            f"Top {record['k']}, bfloat16 logits, {record['logits']['kind']}"
            f" ({record['logits']['what']}). Ours is {', '.join(record['routing'])} and counts what"
            " it wakes as well; the others are top-k alone. Times are medians of"
            f" {record['repeats']} turns, with quartiles; same choice is the share of rows with our"
            " vanilla's experts."
        ),
        "",
        *(f"Not measured: {name}: {why}." for name, why in sorted(record["unavailable"].items())),
    ]
    if record["unavailable"]:
        lines.append("")
    for experts in dict.fromkeys(row["experts"] for row in record["rows"]):
        lines += [
            f"## {experts} experts",
            "",
            *table(
                [
                    "router",
                    "policy",
                    "batch",
                    "experts woken",
                    "µs",
                    f"over {record['reference']}",
                    "same choice",
                    "floor, µs",
                ],
                (
                    [
                        row["router"],
                        row["policy"],
                        str(row["batch"]),
                        str(row["unique_experts"]),
                        spread(row["latency_us"], row["latency_us_quartiles"]),
                        ratio(row["over_reference"]),
                        ratio(row["same_choice"]),
                        f"{row['floor_us']:.3f}",
                    ]
                    for row in record["rows"]
                    if row["experts"] == experts
                ),
                names=2,
            ),
            "",
        ]
    return lines[:-1]


def _provenance(record: Record) -> list[str]:
    return [
        "## How it was measured",
        "",
        *made_by(record, record["seed"]),
    ]
