"""A record beside an older one of the same questions: what a release changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from oea_server.lab.qualify import compact
from oea_server.lab.qualify.pairs import VANILLA, Pair, answers_of, counts
from oea_server.lab.qualify.statistics import difference
from oea_server.lab.records import files
from oea_server.lab.records.record import Record
from oea_server.oneline import oneline

ASKED = ("max_tokens", "temperature", "completions", "seed", "seeds")
"""Of a plan: what must be the same, beside the tasks, for answers to be two by two."""


class AgainstError(ValueError):
    """One clear line: the file, what was found in it and what was expected."""


def read(path: Path, plan: Record) -> Record:
    """An older record of the same questions.

    Args:
        plan: of the run that is to be compared with it; before or after it was played.

    Raises:
        AgainstError: it cannot be read, is no record of `qualify`, or asked something else.
    """
    where = f"--against={oneline(str(path))}"
    try:
        old = files.read(path)
    except OSError as error:
        raise AgainstError(f"{where}: {error.strerror}") from None
    except ValueError as error:
        raise AgainstError(f"{where}: is no JSON: {oneline(str(error))}") from None
    if not isinstance(old, dict) or old.get("benchmark") != "qualify" or "verdicts" not in old:
        raise AgainstError(
            f"{where}: is no record of `oea-server qualify`, such as its qualify.json"
        )
    if old["form"] not in compact.READ:
        raise AgainstError(
            f"{where}: is of form {oneline(str(old['form']))}; this version reads forms "
            + " and ".join(map(str, compact.READ))
        )
    mine, other = plan["tasks"]["sha256"], old["plan"]["tasks"]["sha256"]
    if mine != other:
        raise AgainstError(
            f"{where}: asked other tasks: their sha256 is {other[:12]}, of these it is {mine[:12]}"
        )
    for name in ASKED:
        was, now = old["plan"].get(name), plan.get(name)
        if was != now:
            raise AgainstError(f"{where}: asked otherwise: {name} was {was}, and is {now}")
    return compact.unpacked(old)


def compared(record: Record, old: Record) -> Record:
    """A judged record with `against`: every arm that both have, then and now.

    Returns:
        `against` holds "command", "versions", "machine", "model", "settings" of the old one, and
        "arms", each with its share of right answers "then" and "now", the paired "difference",
        verdicts, TPOT over vanilla then and now.
    """
    names = [name for name in (VANILLA, *record["verdicts"]) if answers_of(old, name)]
    arms = [each for each in (_arm(record, old, name) for name in names) if each is not None]
    facts = {name: old[name] for name in ("command", "versions", "machine", "model")}
    facts["settings"] = old.get("settings", {})
    return {**record, "against": {**facts, "arms": arms}}


def changed(record: Record) -> list[str]:
    """What else is not as it was, a line each: a change of answers may come from there."""
    against = record["against"]
    lines = []
    for before, now in (
        (against["versions"], record["versions"]),
        (against["settings"], record.get("settings", {})),
    ):
        differ = (
            name for name in sorted(before.keys() | now.keys()) if before.get(name) != now.get(name)
        )
        lines += [
            f"{name} was {before.get(name, 'not there')}, and is {now.get(name, 'not there')}"
            for name in differ
        ]
    for name in ("model", "machine"):
        if against[name] != record[name]:
            lines.append(
                f"another {name}: it was {against[name]['name']}, and is {record[name]['name']}"
            )
    return lines


def _arm(record: Record, old: Record, name: str) -> dict[str, Any] | None:
    then, now = ({_asked(each): each for each in answers_of(of, name)} for of in (old, record))
    found = [Pair(then[asked], now[asked]) for asked in sorted(then.keys() & now.keys())]
    counted = counts(found)
    if not counted.pairs:
        return None
    checked = [pair for pair in found if pair.checked]
    seen = difference(*counted, record["plan"]["confidence"])
    return {
        "arm": name,
        "then": sum(bool(pair.vanilla["correct"]) for pair in checked) / len(checked),
        "now": sum(bool(pair.candidate["correct"]) for pair in checked) / len(checked),
        "difference": seen._asdict(),
        **{
            f"{what}_{when}": _of(verdict, what)
            for when, verdict in (
                ("then", old["verdicts"].get(name)),
                ("now", record["verdicts"].get(name)),
            )
            for what in ("verdict", "tpot")
        },
    }


def _of(verdict: dict[str, Any] | None, what: str) -> Any:
    if verdict is None:
        return None
    return verdict["verdict"] if what == "verdict" else verdict["cost"]["tpot"]["ratio"]


def _asked(answer: Record) -> tuple[int, int]:
    return answer["task"], answer["seed"]
