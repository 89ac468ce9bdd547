"""The routing kernel as it is compiled for sm_90, run as PTX: ids, pool and counts are eager's and
the reference's."""

from __future__ import annotations

import itertools
import re
from typing import Any, NamedTuple

import pytest
import torch

from oea_server.routing import Policy, Router, Routing, eager, fused
from oea_server.routing.contract import Scoring
from oea_server.routing.host import reference
from oea_server.routing.knobs import Knobs
from oea_server.routing.placement import Placement, contiguous
from oea_server.routing.tally import HostTally, Tally
from tests.ptx.driver import Driver, decoded
from tests.ptx.parse import PtxError

CPU = torch.device("cpu")
SEEDS = (None, 1, 2)
LAYER = 3


class Shape(NamedTuple):
    """What is compiled for: one variant of the kernel each."""

    num_experts: int
    k: int
    dtype: torch.dtype = torch.bfloat16
    ranks: int = 1
    spare: int = 0
    """Physical experts beyond one each."""
    scoring: Scoring = "softmax"
    biased: bool = False


SHAPES = {
    "128": Shape(128, 8),
    "128, 8 ranks": Shape(128, 8, ranks=8),
    "60, ties, fp16": Shape(60, 4, torch.float16, ranks=4),
    "64, replicas": Shape(64, 6, torch.float32, ranks=4, spare=8),
    "256, sigmoid, biased": Shape(256, 8, torch.float32, ranks=8, scoring="sigmoid", biased=True),
    "512": Shape(512, 10),
}


def policies(shape: Shape) -> dict[str, Policy]:
    k, n = shape.k, shape.num_experts
    return {
        "vanilla": Policy.vanilla(),
        "random": Policy.random(seed=7),
        "pruned": Policy.pruned(k // 2),
        "k0=1": Policy.oea(1),
        "k0=k/2": Policy.oea(k // 2),
        "scheduled": Policy.oea({2: k, 4: 1}),
        "p": Policy.oea(k, p=0.4),
        "k_max<k": Policy.oea(1, k_max=k - 1),
        "max_rank": Policy.oea(1, max_rank=min(n, 12)),
        "at any batch": Policy.oea(1, min_batch=1),
        "by layer": Policy.oea(f"{k}; {LAYER}=1"),
        "fill": Policy.oea(2, pool="fill"),
        "budget": Policy.oea(1, pool="budget", rank_budget=max(2, n // shape.ranks // 4)),
        "budget, pruned reach": Policy.oea(
            1, max_rank=n // 2, pool="budget", rank_budget=n // shape.ranks // 2
        ),
    }


def logits(shape: Shape, batch: int, seed: int, ties: bool) -> torch.Tensor:
    drawn = torch.randn(batch, shape.num_experts, generator=torch.Generator().manual_seed(seed)) * 2
    return (drawn.round() if ties else drawn).to(shape.dtype)


def placed(shape: Shape) -> Placement | None:
    """Where the experts lie; of a shape with replicas, some have two places or three."""
    if shape.ranks == 1:
        return None
    if not shape.spare:
        return contiguous(shape.num_experts, shape.ranks, CPU)
    held = shape.num_experts + shape.spare
    order = torch.randperm(held, generator=torch.Generator().manual_seed(1)).tolist()
    physical = torch.full((shape.num_experts, held), -1, dtype=torch.int64)
    for place, expert in zip(
        order,
        [*range(shape.num_experts), *[0, 0, 5, 9, 11, 20, 33, 60][: shape.spare]],
        strict=True,
    ):
        physical[expert, int((physical[expert] >= 0).sum())] = place
    return Placement(
        shape.ranks,
        held // shape.ranks,
        physical,
        torch.zeros(shape.num_experts, dtype=torch.int32),
    )


class Case:
    """One shape's router: its kernel and eager side by side, both counting."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        held = shape.num_experts + shape.spare
        self.knobs = Knobs({LAYER: shape.k}, shape.num_experts, CPU)
        self.ours = Tally([LAYER], held, shape.ranks, CPU, placed=shape.spare > 0)
        self.theirs = HostTally([LAYER], held, shape.ranks, placed=shape.spare > 0)
        self.bias = torch.linspace(-0.5, 0.5, shape.num_experts) if shape.biased else None
        self.place, self.their_place = placed(shape), placed(shape)
        self.mass = 0
        """Bounds the difference of the sums of router mass, in units."""

    def kwargs(self) -> dict[str, Any]:
        return {
            "router": Router(self.shape.k, scoring=self.shape.scoring, bias=self.bias),
            "layer": LAYER,
        }

    def kernel(self, given: torch.Tensor, real: int, tally: Tally | None) -> Routing:
        count = torch.tensor(real, dtype=torch.int32)
        return fused.route(
            given, self.knobs, num_real=count, tally=tally, placement=self.place, **self.kwargs()
        )

    def check(self, given: torch.Tensor, real: int, policy: Policy) -> None:
        self.knobs.write(policy)
        found = self.kernel(given, real, self.ours)
        expected = eager.route(
            given[:real], policy, tally=self.theirs, placement=self.their_place, **self.kwargs()
        )
        assert torch.equal(found.ids[:real], expected.ids)
        assert torch.equal(found.pool, expected.pool)
        torch.testing.assert_close(found.weights[:real], expected.weights, rtol=1e-5, atol=1e-7)
        assert not found.weights[real:].any()
        if self.place is not None and self.their_place is not None:
            assert torch.equal(self.place.home, self.their_place.home)
        self.mass += 2 * real
        assert torch.equal(self.ours.data[:, :-1], self.theirs.data[:, :-1])
        assert int((self.ours.sums[0, 3] - self.theirs.sums[0, 3]).abs()) <= self.mass


BATCHES = ((0, 0), (1, 1), (5, 0), (19, 18), (33, 33))
"""(rows, real ones): no rows, one token, none, pads, more rows than one program holds."""


@pytest.mark.parametrize("name", SHAPES)
def test_every_policy_counts_and_chooses_as_eager(driver: Driver, name: str) -> None:
    case = Case(SHAPES[name])
    for number, policy in enumerate(policies(case.shape).values()):
        batches = BATCHES if number % 3 == 0 else BATCHES[2:3]
        for batch, real in batches:
            case.check(logits(case.shape, batch, number, "ties" in name), real, policy)


@pytest.mark.parametrize("name", ["128, 8 ranks", "64, replicas"])
def test_128_rows(driver: Driver, name: str) -> None:
    case = Case(SHAPES[name])
    for number, policy in enumerate(("vanilla", "k0=k/2", "p", "budget", "random")):
        case.check(
            logits(case.shape, 128, number, number == 1), 128 - number, policies(case.shape)[policy]
        )


@pytest.mark.parametrize("seed", SEEDS[1:])
@pytest.mark.parametrize("name", ["128, 8 ranks", "64, replicas", "256, sigmoid, biased"])
def test_any_order_of_warps_and_blocks(driver: Driver, name: str, seed: int) -> None:
    case = Case(SHAPES[name])
    driver.seed = seed
    for policy in ("k0=k/2", "p", "budget"):
        case.check(logits(case.shape, 19, seed, seed == 2), 18, policies(case.shape)[policy])


def test_128_rows_in_any_order(driver: Driver) -> None:
    case = Case(SHAPES["128, 8 ranks"])
    driver.seed = 3
    case.check(logits(case.shape, 128, 4, True), 125, policies(case.shape)["k0=k/2"])


def test_without_its_barriers_the_kernel_is_caught(driver: Driver) -> None:
    """The random order is worth something: warps that do not wait give another answer, or read what
    is not theirs."""
    case = Case(SHAPES["128, 8 ranks"])
    case.knobs.write(policies(case.shape)["k0=k/2"])
    given, real = logits(case.shape, 19, 1, False), torch.tensor(18, dtype=torch.int32)
    found = fused.route(given, case.knobs, num_real=real, placement=case.place, **case.kwargs())
    expected, launch = [part.clone() for part in found], driver.launches[-1]
    # a branch to the next instruction: warps may take turns there, as at the barrier
    numbers = itertools.count()
    torn = re.sub(
        r"bar\.sync\s+0;",
        lambda _: "bra $cut{0}; $cut{0}:".format(next(numbers)),
        launch.compiled.ptx,
    )
    assert next(numbers) > 10
    for ptx, same in ((launch.compiled.ptx, True), (torn, False)):
        for part in found:
            part.zero_()
        compiled = launch.compiled._replace(program=decoded(ptx))
        try:
            launch._replace(compiled=compiled).run(seed=1)
        except PtxError:
            assert not same
        assert all(map(torch.equal, found, expected)) == same


@pytest.mark.nightly
@pytest.mark.parametrize("seed", [None, 0, 1, 2, 3])
@pytest.mark.parametrize("name", SHAPES)
def test_every_policy_up_to_128_rows(driver: Driver, name: str, seed: int | None) -> None:
    case = Case(SHAPES[name])
    driver.seed = seed
    for number, policy in enumerate(policies(case.shape).values()):
        if seed is not None and number % 4 != seed:
            continue  # in random order a step of 128 rows takes seconds
        for batch, real in (*BATCHES, (64, 61), (128, 128)):
            case.check(logits(case.shape, batch, number, number % 2 == 0), real, policy)


def test_the_reference_agrees(driver: Driver) -> None:
    """Not only eager, which shares code with the kernel's tables: the slow, obvious one too."""
    shape = SHAPES["128"]
    case = Case(shape)
    for number, (name, policy) in enumerate(policies(shape).items()):
        if policy.pool != "union":
            continue
        case.knobs.write(policy)
        given = logits(shape, 17, number, number % 2 == 0)
        found, expected = (
            case.kernel(given, 16, case.ours),
            reference(given, policy, num_real=16, **case.kwargs()),
        )
        assert torch.equal(found.ids[:16], expected.ids[:16]), name
        assert torch.equal(found.pool, expected.pool), name


@pytest.mark.parametrize("name", ["128, 8 ranks", "64, replicas"])
def test_ranks_that_report_choose_bit_for_bit_as_those_that_do_not(
    driver: Driver, name: str
) -> None:
    """Expert-parallel ranks run the same step; only one of them counts it."""
    case = Case(SHAPES[name])
    for number, policy in enumerate(policies(case.shape).values()):
        case.knobs.write(policy)
        given = logits(case.shape, 16, number, False)
        counted, uncounted = case.kernel(given, 14, case.ours), case.kernel(given, 14, None)
        for ours, theirs in zip(counted, uncounted, strict=True):
            assert torch.equal(ours.view(torch.uint8), theirs.view(torch.uint8))


def test_steps_that_do_not_count_change_no_counter(driver: Driver) -> None:
    case = Case(SHAPES["128"])
    case.ours.counting.fill_(0)
    case.kernel(logits(case.shape, 16, 1, False), 16, case.ours)
    assert not case.ours.data.any()


def test_rows_that_are_strided(driver: Driver) -> None:
    """Logits may be columns of something wider; what lies between the rows is not read."""
    shape = SHAPES["128"]
    case = Case(shape)
    wide = torch.full((19, 192), float("nan"), dtype=shape.dtype)
    wide[:, :128] = logits(shape, 19, 8, False)
    case.check(wide[:, :128], 17, Policy.oea(3))
