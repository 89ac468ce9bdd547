"""Why nothing is concluded, one line each: what was asked could not have shown what the candidate
does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from oea_server.lab.qualify.pairs import VANILLA, Pair, answers_of, unpaired
from oea_server.lab.qualify.statistics import wilson
from oea_server.lab.records.record import Record

LEAST_BATCH = 2.0
"""Requests in a decode step: one that decodes alone is routed as vanilla routes it."""


def refusals(record: Record, candidate: str, found: Sequence[Pair]) -> list[str]:
    """Each reason not to conclude anything of a candidate; none if it can be judged.

    Args:
        found: the pairs of vanilla and the candidate.
    """
    return [
        *_unlike(record, candidate),
        *_alone(record, candidate),
        *_unchecked(found),
        *_blind(record, found),
    ]


def _unlike(record: Record, candidate: str) -> Iterator[str]:
    if not answers_of(record, candidate) or not answers_of(record, VANILLA):
        yield f"{candidate if answers_of(record, VANILLA) else VANILLA} has answered nothing"
        return
    base, mine = unpaired(record, candidate)
    if base or mine:
        yield (
            f"the arms were not asked the same: {base} answers of vanilla and {mine} of {candidate}"
            " have no partner of the same prompt, seed and round"
        )


def _alone(record: Record, candidate: str) -> Iterator[str]:
    blocks = [block for block in record["blocks"] if block["arm"] in (VANILLA, candidate)]
    if not any(block["arm"] == candidate for block in blocks):
        yield f"no decode batch was measured of {candidate}"
    for block in blocks:
        where = f"in round {block['round'] + 1} of {block['arm']}"
        if block["batch"] is None:
            yield f"the decode batch was not measured {where}"
        elif block["batch"] < LEAST_BATCH:
            yield (
                f"{block['batch']:.2f} requests in a decode step {where}: below {LEAST_BATCH:g}"
                " there is nothing to share and OEA routes as vanilla; ask for more concurrency or"
                " longer answers"
            )


def _unchecked(found: Sequence[Pair]) -> Iterator[str]:
    if not found:
        return
    if not any(pair.checked for pair in found):
        yield f"none of the {len(found)} pairs of answers could be checked"
    elif all(answer["tokens"] < 2 for pair in found for answer in pair):
        yield (
            "no answer has a second token: the first comes from prefill, as do log-likelihoods, and"
            " prefill is always vanilla"
        )


def _blind(record: Record, found: Sequence[Pair]) -> Iterator[str]:
    """Tasks at which silence would do no worse than the margin allows."""
    checked = [pair for pair in found if pair.checked]
    if not checked:
        return
    margin, confidence = record["plan"]["margin"], record["plan"]["confidence"]
    share = sum(bool(pair.vanilla["correct"]) for pair in checked) / len(checked)
    right = wilson(share, len({pair.task for pair in checked}), confidence)
    if right.low <= margin:
        yield (
            f"vanilla itself is right in {share:.1%} ({right.low:.1%} to {right.high:.1%}), not"
            f" surely more than the margin of {margin:g}: a candidate that says nothing could pass;"
            " take easier tasks"
        )
