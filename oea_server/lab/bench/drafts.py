"""What `bench serve --speculative` asks of a server besides: what it drafts by, and how much of
that is accepted."""

from __future__ import annotations

from typing import Any, NamedTuple

import requests

from oea_server.client.ask import ask
from oea_server.client.remote import Remote
from oea_server.lab.bench.rounds import Rounds
from oea_server.lab.records.options import OptionError
from oea_server.lab.records.stats import Spread

ROWS = 4
"""Of a request in a verify pass of a server of our own, its token included: as in most public
recipes."""
NGRAM = ("--speculative-algorithm", "NGRAM", "--speculative-num-draft-tokens", str(ROWS))
PASSES = "sglang:spec_verify_calls_total"
"""Verify passes of requests that have ended, as SGLang counts them."""


class Drafts(NamedTuple):
    """How a server drafts."""

    algorithm: str
    rows_per_request: int
    """Rows of a request: its token and the guesses behind the token."""


def of(server: Remote) -> Drafts:
    """The drafts of a running server.

    Raises:
        OptionError: it verifies none, or does not say.
    """
    try:
        reply = ask("GET", f"{server.url}/server_info", server.key, timeout=30)
        reply.raise_for_status()
        said: dict[str, Any] = reply.json()
    except (requests.RequestException, ValueError) as error:
        raise OptionError(
            f"--speculative: the server says nothing of its drafts: {type(error).__name__}"
        ) from None
    if not said.get("speculative_algorithm"):
        raise OptionError(
            "--speculative: the server at --url verifies no drafts: it needs"
            " --speculative-algorithm"
        )
    return Drafts(str(said["speculative_algorithm"]), int(said["speculative_num_draft_tokens"]))


def forget(server: Remote) -> None:
    """Empty a server's caches, and with them what n-grams have learned.

    Raises:
        requests.HTTPError: it does not, because somebody else's requests run, or without its admin
        key.
    """
    ask("POST", f"{server.url}/flush_cache", server.key).raise_for_status()


def passes(server: Remote) -> float:
    """Verify passes of all requests that have ended so far: a pass counts once for each of its
    requests."""
    return sum(sample.value for sample in server.samples() if sample.name == PASSES)


def verified(rounds: Rounds, vanilla: Rounds | None) -> dict[str, Any]:
    """What a row of the record says besides: tokens accepted, and the verify pass over
    vanilla's."""
    accepted = Spread.of(rounds.accepted)
    row: dict[str, Any] = {
        "accept_length": accepted.median,
        "accept_length_quartiles": [accepted.lower, accepted.upper],
        "step_over_vanilla": None,
        "step_over_vanilla_quartiles": None,
    }
    if vanilla is not None:
        pairs = zip(rounds.step_seconds, vanilla.step_seconds, strict=True)
        ratio = Spread.of([ours / theirs for ours, theirs in pairs])
        row |= {
            "step_over_vanilla": ratio.median,
            "step_over_vanilla_quartiles": [ratio.lower, ratio.upper],
        }
    return row
