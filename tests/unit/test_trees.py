"""Who follows whom in trees of drafts, from SGLang's links, drawn at random."""

from __future__ import annotations

import random

import pytest
import torch

from oea_server.routing import trees


def links(parents: list[int]) -> tuple[list[int], list[int]]:
    """SGLang's, of nodes whose parents are given: the first child of each, and its next sibling; -1
    for none."""
    child, sibling, last = [-1] * len(parents), [-1] * len(parents), dict[int, int]()
    for place, parent in enumerate(parents[1:], start=1):
        if parent in last:
            sibling[last[parent]] = place
        else:
            child[parent] = place
        last[parent] = place
    return child, sibling


def ancestors(parents: list[int], place: int) -> set[int]:
    """Guesses that a guess follows: the token, which is all guesses' ancestor, is not one."""
    parent = parents[place]
    return set() if parent <= 0 else {parent, *ancestors(parents, parent)}


def drawn(dice: random.Random, n: int) -> list[int]:
    far = dice.choice([1, 3, n])
    return [-1, *(dice.randrange(max(0, place - far), place) for place in range(1, n))]


@pytest.mark.parametrize("n", [1, 2, 5, 64, 90])
def test_each_guess_knows_its_ancestors(n: int) -> None:
    dice = random.Random(n)
    for _ in range(20):
        requests = [drawn(dice, n) for _ in range(3)]
        child, sibling = (torch.tensor(each) for each in zip(*map(links, requests), strict=True))
        into = torch.full((3 * n + 2,), 7)
        trees.write(child, sibling, into)
        assert into[3 * n :].tolist() == [7, 7]
        for parents, words in zip(requests, into[: 3 * n].view(3, n).tolist(), strict=True):
            assert words[0] == 0
            for place in range(1, n):
                found = {place - 1 - bit for bit in range(63) if ~words[place] >> bit & 1}
                assert found == {
                    each for each in ancestors(parents, place) if place - each <= trees.REACH
                }


def test_a_pass_without_guesses_has_tokens_alone() -> None:
    into, none = torch.full((4,), 7), torch.full((4, 1), -1)
    trees.write(none, none, into)
    assert into.tolist() == [0, 0, 0, 0]
