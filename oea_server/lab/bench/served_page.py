"""The page of what `bench serve` has measured, from its record and from nothing else."""

from __future__ import annotations

from oea_server.lab.records.record import Record
from oea_server.lab.records.tables import micro, ratio, spread, table


def lines(record: Record) -> list[str]:
    """The page, except how it was made."""
    model, bandwidth, drafts = record["model"], record["bandwidth"], record.get("drafts")
    return [
        (
            f"# A live server, {model['name']}{', with drafts' if drafts else ''}:"
            f" {record['machine']['name']}"
        ),
        "",
        (
            f"{model['layers']} layers, {model['bytes_per_expert'] / 1e6:.2f} MB an expert."
            f" Streamed completions of {record['tokens']} tokens, all at once; the policy of the"
            f" one server is switched between rounds, {record['repeats']} measured rounds of each"
            " in turn. TPOT is what a client sees after the first token, medians with quartiles;"
            " over vanilla is the median of the ratios of rounds that took turns. The step is the"
            " model's forward pass, the floor the time to read T experts in every layer at"
            f" {bandwidth['gb_per_s']:.1f} GB/s, measured between the rounds. Mass kept is the"
            " share of the router mass of the model's own top k that the chosen experts hold."
        ),
        *(["", _of_drafts(drafts)] if drafts else []),
        "",
        *(_verified(record) if drafts else _decoded(record)),
    ]


def _decoded(record: Record) -> list[str]:
    header = [
        "policy",
        "requests",
        "T",
        "mass kept",
        "TPOT, ms",
        "over vanilla",
        "ITL p50, ms",
        "ITL p99, ms",
    ]
    return table(
        [*header, "tokens/s", "step, ms", "floor, ms"],
        (
            [
                *_routed(row),
                spread(row["tpot_ms"], row["tpot_ms_quartiles"]),
                ratio(row["tpot_over_vanilla"]),
                micro(row["itl_p50_ms"]),
                micro(row["itl_p99_ms"]),
                f"{row['tokens_per_s']:.1f}",
                micro(row["latency_us"] / 1e3),
                micro(row["floor_us"] / 1e3),
            ]
            for row in record["rows"]
        ),
    )


def _of_drafts(drafts: Record) -> str:
    return (
        f"Drafts by {drafts['algorithm']}: a step is a verify pass, in which each request has"
        f" {drafts['rows_per_request']} rows. The chats are greedy, the same in each round, and"
        " lists that go on as they began, so that n-grams have something to guess; the server's"
        " caches are emptied before each round. Accepted is the tokens that a request got of a"
        " step, its first token aside; both ratios are medians, with quartiles. Requests end after"
        " different numbers of steps, so a step has fewer rows on average than at first."
    )


def _verified(record: Record) -> list[str]:
    header = [
        "policy",
        "requests",
        "T",
        "mass kept",
        "rows in a step",
        "accepted",
        "step, ms",
        "step over vanilla",
    ]
    return table(
        [*header, "floor, ms", "TPOT, ms", "TPOT over vanilla", "tokens/s"],
        (
            [
                *_routed(row),
                f"{row['tokens_in_a_step']:.1f}",
                _span(row["accept_length"], row["accept_length_quartiles"]),
                spread(
                    row["latency_us"] / 1e3, [each / 1e3 for each in row["latency_us_quartiles"]]
                ),
                _span(row["step_over_vanilla"], row["step_over_vanilla_quartiles"]),
                micro(row["floor_us"] / 1e3),
                spread(row["tpot_ms"], row["tpot_ms_quartiles"]),
                _span(row["tpot_over_vanilla"], row["tpot_over_vanilla_quartiles"]),
                f"{row['tokens_per_s']:.1f}",
            ]
            for row in record["rows"]
        ),
    )


def _routed(row: Record) -> list[str]:
    return [
        row["policy"],
        str(row["batch"]),
        f"{row['unique_experts']:.1f}",
        f"{row['mass_kept']:.3f}",
    ]


def _span(value: float | None, quartiles: list[float]) -> str:
    """A ratio with its quartiles."""
    return ratio(value) if value is None else f"{value:.2f} ({quartiles[0]:.2f}–{quartiles[1]:.2f})"
