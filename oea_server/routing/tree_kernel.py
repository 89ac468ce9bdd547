"""The kernel of `oea_server.routing.trees.write`: one program a request."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from oea_server.routing import trees

REACH, ALL = tl.constexpr(trees.REACH), tl.constexpr(trees.ALL)


def launch(first_child: torch.Tensor, next_sibling: torch.Tensor, into: torch.Tensor) -> None:
    """Write the words of all requests."""
    requests, n = first_child.shape
    links = first_child.contiguous(), next_sibling.contiguous()
    tree_kernel[(requests,)](*links, into, n, NODES=triton.next_power_of_2(n), num_warps=1)


@triton.jit(do_not_specialize=["child_ptr", "sibling_ptr", "words_ptr", "n"])
def tree_kernel(child_ptr, sibling_ptr, words_ptr, n, NODES: tl.constexpr):
    place = tl.arange(0, NODES)
    at = tl.program_id(0) * n + place
    children = tl.load(child_ptr + at, mask=place < n, other=-1).to(tl.int32)
    siblings = tl.load(sibling_ptr + at, mask=place < n, other=-1).to(tl.int32)
    above = tl.zeros([NODES], tl.int64)
    for row in range(n):  # what follows a row lies behind it
        mine = tl.sum(tl.where(place == row, above, 0))
        back = place - row
        moved = tl.where(back < REACH, mine << (back & 63), 0) & ALL
        itself = tl.where(
            (back <= REACH) & (row > 0), tl.full([NODES], 1, tl.int64) << ((back - 1) & 63), 0
        )
        child = tl.max(tl.where(place == row, children, -1))
        sibling = tl.max(tl.where(place == row, siblings, -1))
        above = tl.where((back > 0) & (place == child), moved | itself, above)
        above = tl.where((back > 0) & (place == sibling), moved, above)
    tl.store(words_ptr + at, tl.where(place == 0, 0, ~above), mask=place < n)
