"""What each guess of a tree follows, as `oea_server.routing.route` takes it, from links between a
request's rows."""

from __future__ import annotations

import torch

REACH = 63
"""Rows before a row that its word has bits for; ancestors further away are left out."""
ALL = (1 << REACH) - 1


def write(first_child: torch.Tensor, next_sibling: torch.Tensor, into: torch.Tensor) -> None:
    """0 for each request's token, ~a for a guess whose ancestors among the guesses are the bits of
    a.

    Args:
        first_child: [requests, n] integers, the place in its request of the first row that follows
            each; -1 for none.
        next_sibling: likewise of the next row that follows the same one. Both lie behind it, as
            SGLang builds trees (`retrieve_next_token`, `retrieve_next_sibling`).
        into: [at least requests * n] int64 on their device, of which the rest stays as it is.
    """
    if first_child.is_cuda:
        from oea_server.routing.tree_kernel import launch

        launch(first_child, next_sibling, into)
        return
    pairs = zip(first_child.tolist(), next_sibling.tolist(), strict=True)
    into[: first_child.numel()] = torch.tensor([word for each in pairs for word in words(*each)])


def words(children: list[int], siblings: list[int]) -> list[int]:
    """The words of one request."""
    above = [0] * len(children)
    for place, (child, sibling) in enumerate(zip(children, siblings, strict=True)):
        if child > place:
            own = place > 0  # a token's floor is open to all as it is
            above[child] = _moved(above[place], child - place) | (own << child - place - 1 & ALL)
        if sibling > place:
            above[sibling] = _moved(above[place], sibling - place)
    return [~bits if place else 0 for place, bits in enumerate(above)]


def _moved(bits: int, rows: int) -> int:
    return bits << rows & ALL
