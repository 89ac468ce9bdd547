"""The HTML page of a judged record: one file, without scripts and without a network, for both
themes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from importlib import resources
from typing import Any

from oea_server.lab.qualify import against, words
from oea_server.lab.qualify.compact import LONGEST
from oea_server.lab.qualify.pairs import Pair, pairs
from oea_server.lab.qualify.picture import differences
from oea_server.lab.qualify.sections import Section, sections
from oea_server.lab.records.record import Record
from oea_server.lab.records.tables import made_on

SHOWN = 5
"""Answers that changed sides, of each kind and candidate."""


def document(record: Record) -> str:
    """The whole page."""
    title = f"Qualified: {record['model']['name']}, {record['machine']['name']}"
    plan = record["plan"]
    style = resources.files(__package__).joinpath("document.css").read_text(encoding="utf-8")
    body = [
        f"<header><h1>{escape(title)}</h1><p>{escape(_asked(plan))}</p></header><main>",
        *(_verdict(record, name) for name in record["verdicts"]),
        f"<section><h2>Difference in right answers</h2>{differences(record)}</section>",
        *map(_section, sections(record)),
        _since(record),
        *(_changed(record, name) for name in record["verdicts"]),
        f"<section><h2>What was not tested</h2>{_list(words.not_tested(record))}</section>",
        f"<section><h2>How it was made</h2><pre>{escape(record['command'])}</pre>",
        f"<p>{escape(made_on(record))} Seed {plan['seed']}.</p></section></main>",
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; style-src'
        " 'unsafe-inline'\">"
        f"<title>{escape(title)}</title>\n<style>\n{style}</style></head>\n<body>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def _asked(plan: Record) -> str:
    heat = f"temperature {plan['temperature']:g}" if plan["temperature"] else "greedy"
    return (
        f"{plan['tasks']['number']:,} tasks of {plan['tasks']['file']}, {plan['concurrency']} at"
        f" once, at most {plan['max_tokens']:,} tokens, {heat}; vanilla and candidates in turn on"
        f" one server, {plan['rounds']} rounds at most. Margin: {100 * plan['margin']:g} points of"
        " accuracy."
    )


def _verdict(record: Record, name: str) -> str:
    verdict = record["verdicts"][name]
    kind = verdict["verdict"].replace(" ", "-")
    facts = {
        "Right answers": words.accuracy(verdict),
        "Bought": words.bought(verdict),
        "Paid": words.paid(verdict),
    }
    return (
        f'<section class="verdict {kind}"><p class="mark">{escape(verdict["verdict"])}</p>'
        f"<h2>{escape(words.headline(name, verdict))}</h2>"
        f"{_list(verdict['refusals'] or [verdict['why']], 'why')}"
        f"<dl>{''.join(f'<dt>{t}</dt><dd>{escape(said)}</dd>' for t, said in facts.items())}</dl>"
        f"{_list([f'{note}.' for note in verdict['notes']], 'notes')}</section>"
    )


def _section(section: Section) -> str:
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in section.header)
    rows = "".join(f"<tr>{_row(cells)}</tr>" for cells in section.rows)
    return (
        f'<section><h2>{escape(section.title)}</h2><p>{escape(section.said)}</p><div class="wide"'
        ' tabindex="0">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div></section>"
    )


def _row(cells: Sequence[str]) -> str:
    return f'<th scope="row">{escape(cells[0])}</th>' + "".join(
        f"<td>{escape(cell)}</td>" for cell in cells[1:]
    )


def _since(record: Record) -> str:
    other = against.changed(record) if "against" in record else []
    return (
        f"<section><h2>What else changed since the older record</h2>{_list(other)}</section>"
        if other
        else ""
    )


def _changed(record: Record, name: str) -> str:
    """Some answers that changed sides, as they were given."""
    found = [pair for pair in pairs(record, name) if pair.checked]
    lost, won = [pair for pair in found if pair.lost], [pair for pair in found if pair.won]
    if not lost and not won:
        return ""
    return (
        f"<section><h2>Answers that changed: {escape(name)}</h2>"
        f"{_examples(f'Only vanilla is right ({len(lost):,})', lost)}"
        f"{_examples(f'Only the candidate is right ({len(won):,})', won)}</section>"
    )


def _examples(title: str, found: Sequence[Pair]) -> str:
    if not found:
        return ""
    shown = "".join(
        f"<tr><th scope='row'>task {pair.task + 1}, seed {pair.vanilla['seed']},"
        f" {escape(str(pair.vanilla['group']))}"
        f"</th><td><pre>{_text(pair.vanilla)}</pre></td><td><pre>{_text(pair.candidate)}</pre></td></tr>"
        for pair in found[:SHOWN]
    )
    more = f", the first {SHOWN}" if len(found) > SHOWN else ""
    head = "".join(f'<th scope="col">{each}</th>' for each in ("asked", "vanilla", "candidate"))
    return (
        f'<details><summary>{escape(title)}{more}</summary><div class="wide" tabindex="0"><table'
        ' class="texts"><thead>'
        f"<tr>{head}</tr></thead><tbody>{shown}</tbody></table></div></details>"
    )


def _text(answer: dict[str, Any]) -> str:
    text = str(answer["text"])
    return escape(text if len(text) <= LONGEST else text[:LONGEST] + " …") or "(empty)"


def _list(texts: Iterable[str], kind: str = "") -> str:
    items = "".join(f"<li>{escape(text)}</li>" for text in texts)
    return f'<ul class="{kind}">{items}</ul>' if items else ""
