"""An A/B record as one HTML page that needs nothing else, as CSV, and as Markdown."""

from __future__ import annotations

import base64
import csv
import html
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from loadtest.ab import MEASURES
from oea_server.lab.records import files
from oea_server.lab.records.tables import made_by, table

Record = dict[str, Any]

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto;
  padding: 0 1rem; color: #222 }
table { border-collapse: collapse; margin: 1rem 0 }
td, th { padding: .25rem .7rem; border-bottom: 1px solid #ddd; text-align: right }
td:first-child, th:first-child, td.text { text-align: left }
tr.significant td { font-weight: 600 }
img { max-width: 100%; height: auto }
code { background: #f3f3f3; padding: .1rem .3rem }
"""
HEADER = ("measure", "unit", "A", "B", "B - A", "95 %", "B / A", "95 %", "p")


def save(record: Record, folder: Path, name: str) -> list[Path]:
    """Write `name`.json, .csv (a line per block), .md and .html; returns them."""
    paths = [folder / f"{name}.{suffix}" for suffix in ("json", "csv", "md", "html")]
    record = files.write(paths[0], record)
    paths[1].write_text(lines(record["blocks"]), encoding="utf-8")
    paths[2].write_text(markdown(record), encoding="utf-8")
    paths[3].write_text(page(record), encoding="utf-8")
    return paths


def lines(blocks: Sequence[Record]) -> str:
    """CSV: a line per block, in the order they were played."""
    text = io.StringIO()
    writer = csv.DictWriter(
        text, ["pair", "arm", *(each.name for each in MEASURES)], lineterminator="\n"
    )
    writer.writeheader()
    writer.writerows(blocks)
    return text.getvalue()


def rows(record: Record) -> Iterable[tuple[bool, list[str]]]:
    """The table's: whether it is significant, and its cells."""
    for row in record["rows"]:
        ratio = ["–", "–"]
        if row["ratio"] is not None:
            ratio = [f"{row['ratio']:.3f}", f"{row['ratio_low']:.3f} to {row['ratio_high']:.3f}"]
        change = [f"{row['change']:+.4g}", f"{row['low']:+.4g} to {row['high']:+.4g}"]
        cells = [
            row["name"],
            row["unit"],
            f"{row['a']:.4g}",
            f"{row['b']:.4g}",
            *change,
            *ratio,
            f"{row['p']:.4f}",
        ]
        yield row["significant"], cells


def story(record: Record) -> str:
    """What was done, in a paragraph."""
    plan, tenant = record["plan"], record["plan"]["tenant"]
    return (
        f"One server of {record['model']['name']}, switched live between A and B: {plan['pairs']}"
        f" pairs of blocks, ABBA or BAAB at random, {plan['requests']} chats a block,"
        f" {plan['chats']} at once, prompt {tenant['prompt']}, output {tenant['output']}. Both"
        " blocks of a pair ask for the same lengths in different words. Values are means over"
        " blocks; 95 % is the bootstrap's interval over pairs; p is of a sign-flip test. A row is"
        " significant (bold) by Holm's rule over all rows: in a null test, the chance that any is"
        " so is 5 %."
    )


def markdown(record: Record) -> str:
    """The record as a page to keep beside it."""
    cells = [
        [f"**{c}**" if bold and i == 0 else c for i, c in enumerate(row)]
        for bold, row in rows(record)
    ]
    return "\n".join(
        [
            f"# A/B on a live server: {record['machine']['name']}",
            "",
            (
                f"A: `{_knobs(record['arms']['a'])}`, B: `{_knobs(record['arms']['b'])}`."
                f" {story(record)}"
            ),
            "",
            *table(HEADER, cells, names=2),
            "",
            *provenance(record),
            "",
        ]
    )


def page(record: Record) -> str:
    """One HTML file, pictures inside."""
    from loadtest.pictures import blocks_over_time, forest

    shown = (
        f"<tr{' class=significant' if bold else ''}>"
        f"{''.join(f'<td>{html.escape(cell)}</td>' for cell in cells)}</tr>"
        for bold, cells in rows(record)
    )
    measures = (f"<tr><td>{m.name}</td><td class=text>{m.what}</td></tr>" for m in MEASURES)
    title = f"A/B on a live server: {record['machine']['name']}"
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        *(
            f"<p>{arm.upper()}: <code>{html.escape(_knobs(record['arms'][arm]))}</code></p>"
            for arm in ("a", "b")
        ),
        f"<p>{html.escape(story(record))}</p>",
        f"<table><tr>{''.join(f'<th>{each}</th>' for each in HEADER)}</tr>{''.join(shown)}</table>",
        _image(forest(record), "B over A with intervals, measure by measure"),
        _image(blocks_over_time(record), "blocks in the order they were played"),
        f"<table>{''.join(measures)}</table>",
        *(f"<p>{html.escape(line.strip())}</p>" for line in provenance(record) if line),
    ]
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{STYLE}</style><body>{''.join(parts)}</body></html>\n"
    )


def provenance(record: Record) -> list[str]:
    """Machine, versions, seed and command."""
    return made_by(record, record["plan"]["seed"])


def _knobs(arm: Record) -> str:
    return ", ".join(f"{name}={'none' if value is None else value}" for name, value in arm.items())


def _image(png: bytes, text: str) -> str:
    return f'<p><img alt="{text}" src="data:image/png;base64,{base64.b64encode(png).decode()}"></p>'
