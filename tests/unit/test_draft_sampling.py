"""Tokens that come of a verify pass follow the distribution of the target as we route it, whatever
was guessed.

The target is two MoE layers; two requests, each a token and two guesses; tokens are accepted or
drawn as by SGLang's kernel (`cpu.speculation.verify_by_sampling`)."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import pytest
import torch

from oea_server.cpu.speculation import verify_by_sampling
from oea_server.routing import Policy, Router, host

WORDS, HIDDEN, EXPERTS, K = 4, 16, 16, 4
DRAWS = 20_000
UNLIKELY = 21.1
"""χ² of 3 degrees of freedom is above it once in ten thousand."""
DEPTHS = torch.tensor([0, 1, 2, 0, 1, 2])
POLICY = Policy.oea(1)
NEXT = 2
"""The other request's first guess, always: the second token of the first may depend on it."""

_dice = torch.Generator().manual_seed(5)
EMBEDDINGS = torch.randn(WORDS, HIDDEN, generator=_dice)
GATES = torch.randn(2, HIDDEN, EXPERTS, generator=_dice) * 0.2
WAYS = torch.randn(2, EXPERTS, HIDDEN, generator=_dice)
HEAD = torch.randn(HIDDEN, WORDS, generator=_dice) * 0.12


def distributions(tokens: tuple[int, ...], drafts: torch.Tensor | None) -> torch.Tensor:
    """What the target says of the token after each row. [rows, WORDS]"""
    width = len(tokens) // 2
    words = EMBEDDINGS[list(tokens)].view(2, width, HIDDEN)
    # a row has read what is before it
    hidden = (words.cumsum(1) / torch.arange(1, width + 1)[:, None]).flatten(0, 1)
    for gate, way in zip(GATES, WAYS, strict=True):
        weights, ids, _ = host.route(hidden @ gate, POLICY, Router(K), drafts=drafts)
        hidden = hidden + (weights[..., None] * way[ids.long()]).sum(1)
    return (hidden @ HEAD).softmax(-1)


class Counts(NamedTuple):
    """Of the first request: its first tokens, and its second ones after each first one. [WORDS],
    [WORDS, WORDS]"""

    first: torch.Tensor
    second: torch.Tensor


@cache
def counted(exact: bool) -> Counts:
    """Many verify passes, each with other guesses, of one state."""
    generator = torch.Generator().manual_seed(6)
    known = {}
    found = Counts(torch.zeros(WORDS), torch.zeros(WORDS, WORDS))
    index, child, sibling = (
        torch.arange(3)[None],
        torch.tensor([[1, 2, -1]]),
        torch.full((1, 3), -1),
    )
    guesses = torch.randint(WORDS, (DRAWS, 3), generator=generator)
    coins, last = (
        torch.rand(DRAWS, 1, 3, generator=generator),
        torch.rand(DRAWS, 1, generator=generator),
    )
    for draw, (one, two, theirs) in enumerate(guesses.tolist()):
        tokens = (0, one, two, 1, NEXT, theirs)
        if tokens not in known:
            known[tokens] = distributions(tokens, DEPTHS if exact else None)[None, :3]
        target, candidates = known[tokens], torch.tensor([[0, one, two]])
        taken, accepted = (
            torch.zeros(3, dtype=torch.int32),
            torch.full((1, 3), -1, dtype=torch.int32),
        )
        how_many = torch.zeros(1, dtype=torch.int32)
        given = (
            taken,
            accepted,
            how_many,
            candidates,
            index,
            child,
            sibling,
            coins[draw],
            last[draw],
        )
        verify_by_sampling(*given, target, torch.zeros_like(target))
        found.first[taken[0]] += 1
        if int(how_many):
            found.second[taken[0], taken[1]] += 1
    return found


def chi2(counts: torch.Tensor, probabilities: torch.Tensor) -> float:
    expected = probabilities * counts.sum()
    return float(((counts - expected) ** 2 / expected).sum())


def test_the_first_token_is_as_if_nothing_were_guessed() -> None:
    """Of a plain decode step of both requests."""
    assert chi2(counted(exact=True).first, distributions((0, 1), None)[0]) < UNLIKELY


@pytest.mark.parametrize("first", range(WORDS))
def test_the_second_follows_the_target_that_has_read_the_first(first: int) -> None:
    seconds = counted(exact=True).second[first]
    assert seconds.sum() > 300
    expected = distributions((0, first, 3, 1, NEXT, 3), DEPTHS)[1]
    assert chi2(seconds, expected) < UNLIKELY


def test_with_a_plain_pool_over_all_rows_it_would_not() -> None:
    assert chi2(counted(exact=False).first, distributions((0, 1), None)[0]) > 2 * UNLIKELY
