"""What the loop is given, and what it finds out of each token."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from oea_server.routing.contract import RENORMALIZE_EPSILON, SCORINGS

Array = npt.NDArray[Any]

EPSILON = np.float32(RENORMALIZE_EPSILON)
SOFTMAX, SIGMOID = SCORINGS.index("softmax"), SCORINGS.index("sigmoid")


class Rows(NamedTuple):
    """The rows of a step.

    Args:
        logits: [B, N] float32.
        real: [B] bool, which of them are tokens.
        k0: [B] int64, what a row asks for itself (`oea_server.routing.route`), 0 where it does not;
            empty if none does.
        drafts: [B] int64, 0 for tokens, j for the j-th guess in a chain, negative for one in a tree
            (`oea_server.routing.route`); empty if all are tokens.
    """

    logits: Array
    real: Array
    k0: Array
    drafts: Array


class Model(NamedTuple):
    """The fields of a `Router` as numbers; bias and expert_scale [N] float32, empty if there is
    none."""

    k: int
    scoring: int
    bias: Array
    groups: int
    top_groups: int
    top2: bool
    renormalize: bool
    scale: float
    expert_scale: Array
    zeros: int


class Draw(NamedTuple):
    """Experts at random, in place of the router's own order."""

    on: bool
    seed: int
    layer: int


class Where(NamedTuple):
    """Where experts lie, and how far the pool may be widened there: see `Placement` and `Room`; no
    map if empty."""

    physical: Array
    home: Array
    ranks: int
    slots: int
    kind: int
    budget: int


class Counters(NamedTuple):
    """A layer's row of a `Tally`, empty if nothing is counted. Beside it what becomes of each row
    of a step, [B, 2] as `HostTally.watched`, empty if not asked for."""

    row: Array
    counting: int
    experts: int
    ranks: int
    placed: bool
    rows: Array


class Seen(NamedTuple):
    """What is known of each token.

    Args:
        whole: [B] bool; a broken row is a token, and else a pad row.
        scores, choice: [B, N] float32, what weighs and what chooses.
        member: [B, N] bool, the experts of the token's groups.
        own, best: [B, k], its own top k, and that of the order that it chooses by.
        mass_own: [B] float32, the scores of its own top k.
        guaranteed: [B, k] bool, which of its best are its floor.
    """

    whole: Array
    scores: Array
    choice: Array
    member: Array
    own: Array
    best: Array
    mass_own: Array
    guaranteed: Array
