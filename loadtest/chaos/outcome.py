"""What came of a fault."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from oea_server.lab.records.tables import made_by, table

HELD, BROKE, SKIPPED = "held", "broke", "skipped"


class Seen(NamedTuple):
    """What a fault's own client saw.

    Args:
        wrong: what should not have been, one line each; empty if all was proper.
        known: what is SGLang's own and written down in docs/load-testing.md; told, not judged.
    """

    what: str
    wrong: tuple[str, ...] = ()
    known: tuple[str, ...] = ()


def said_of(known: Sequence[str]) -> str:
    """What is SGLang's own, as the end of a sentence."""
    return f"; SGLang's own: {'; '.join(known)}" if known else ""


def left_of(wrong: Sequence[str]) -> str:
    """What was left behind, of all that was wrong."""
    return ", ".join(each for each in wrong if "left: " in each) or "nothing"


class Outcome(NamedTuple):
    """One fault.

    Args:
        client_saw: the client that caused it.
        others_saw: streams of other clients meanwhile.
        server_did: from its log and its process.
        leaked: handles, threads, requests, KV slots that are still held when it is over.
        verdict: held, broke, or skipped.
        why: of a verdict that is not held, one line each.
    """

    fault: str
    client_saw: str
    others_saw: str
    server_did: str
    leaked: str
    verdict: str
    why: tuple[str, ...] = ()
    seconds: float = 0.0


def renewed(before: Sequence[Outcome], now: Sequence[Outcome]) -> list[Outcome]:
    """The outcomes of a record, each fault that happened again with its new one; faults that are
    new to it behind."""
    again = {outcome.fault: outcome for outcome in now}
    return [again.pop(outcome.fault, outcome) for outcome in before] + list(again.values())


def read(record: dict[str, Any]) -> list[Outcome]:
    """The outcomes that a record keeps."""
    return [Outcome(**{**each, "why": tuple(each["why"])}) for each in record["outcomes"]]


def skipped(fault: str, why: str) -> Outcome:
    return Outcome(fault, "–", "–", "–", "–", SKIPPED, (why,))


HEADER = ("fault", "its client saw", "other clients saw", "the server", "leaked", "verdict", "s")


def cells(outcome: Outcome) -> list[str]:
    """A line of the table."""
    why = f": {'; '.join(outcome.why)}" if outcome.why else ""
    return [
        outcome.fault,
        outcome.client_saw,
        outcome.others_saw,
        outcome.server_did,
        outcome.leaked,
        f"{outcome.verdict}{why}",
        f"{outcome.seconds:.1f}",
    ]


def markdown(record: dict[str, Any]) -> str:
    """The record as a page."""
    outcomes = read(record)
    return "\n".join(
        [
            f"# Faults: {record['machine']['name']}",
            "",
            (
                "Each on a running CPU demo server, with greedy streams of other clients meanwhile"
                f" where the fault is one client's ({tally(outcomes)})."
            ),
            "",
            *table(
                HEADER,
                (
                    [each.replace("|", "\\|").replace("\n", " ") for each in cells(o)]
                    for o in outcomes
                ),
                6,
            ),
            "",
            *made_by(record),
            "",
        ]
    )


def tally(outcomes: Sequence[Outcome]) -> str:
    """``17 held, 1 skipped``."""
    verdicts = [outcome.verdict for outcome in outcomes]
    return ", ".join(
        f"{verdicts.count(each)} {each}" for each in (HELD, BROKE, SKIPPED) if each in verdicts
    )
