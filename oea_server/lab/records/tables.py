"""Tables of a record's page, in Markdown, and the lines that say how it was made."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from oea_server.lab.records.record import Record

NONE = "–"


def table(header: Sequence[str], rows: Iterable[Sequence[str]], names: int = 1) -> list[str]:
    """A Markdown table; all columns but the first `names` are aligned right."""
    return [
        "| " + " | ".join(header) + " |",
        "|" + "---|" * names + "---:|" * (len(header) - names),
        *("| " + " | ".join(row) + " |" for row in rows),
    ]


def micro(value: float | None) -> str:
    """µs, three digits at least."""
    if value is None:
        return NONE
    return f"{value:.{0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2}f}"


def spread(value: float, quartiles: Sequence[float]) -> str:
    """Median and quartiles."""
    return f"{micro(value)} ({micro(quartiles[0])}–{micro(quartiles[1])})"


def ratio(value: float | None) -> str:
    """A ratio, two decimals."""
    return NONE if value is None else f"{value:.2f}"


def made_by(record: Record, seed: int | None = None) -> list[str]:
    """What every page ends with: a record's command, machine and versions, and its seed where that
    is given."""
    return [
        f"    {record['command']}",
        "",
        made_on(record) + ("" if seed is None else f" Seed {seed}."),
    ]


def made_on(record: Record) -> str:
    """A record's machine and versions, a sentence each."""
    machine = record["machine"]
    gpu = (
        f"{machine['gpu']} ({machine['gpu_memory_gib']} GiB, CUDA {machine['cuda']}), "
        if "gpu" in machine
        else ""
    )
    versions = ", ".join(f"{name} {number}" for name, number in record["versions"].items())
    memory = f"{machine['memory_gib']} GiB of memory"
    return f"{gpu}{machine['processor']}, {machine['cores']} cores, {memory}. {versions}."


def percent(value: float) -> str:
    """A share, in whole percent."""
    return f"{100 * value:.0f} %"
