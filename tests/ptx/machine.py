"""Runs a program's blocks: all threads in step where their order is plain, or warp by warp in a
random one."""

from __future__ import annotations

import random

import numpy as np

from tests.ptx.global_memory import GlobalMemory
from tests.ptx.lanes import WARP, Lanes
from tests.ptx.parse import PtxError
from tests.ptx.program import Barrier, Exit, Jump, Program, Run
from tests.ptx.registers import Grid, views_of
from tests.ptx.scratch import Scratch
from tests.ptx.values import Array

SPLIT = 0.5
"""Of random turns, how many are for a part of the blocks."""


class Machine:
    """One launch.

    Args:
        threads: of a block, a multiple of 32.
        arguments: the bits of each parameter.
        shared_bytes: shared memory of a block, the arrays without a length included.
        seed: None runs the threads that lag behind most first, of all blocks at once. A number lets
            warps take turns at random, not the same in every block: each runs to its next branch,
            label or barrier. What a barrier should have put in order then comes out another way.
    """

    def __init__(
        self,
        program: Program,
        grid: Grid,
        threads: int,
        arguments: list[int],
        global_memory: GlobalMemory,
        shared_bytes: int = 0,
        seed: int | None = None,
    ) -> None:
        if threads % WARP:
            raise PtxError(f"{threads} threads are no whole warps")
        blocks = grid[0] * grid[1] * grid[2]
        self.program = program
        self.threads = threads
        self.random = None if seed is None else random.Random(seed)
        shared = Scratch("shared", blocks, max(shared_bytes, program.kernel.shared.size))
        local = Scratch("local", blocks * threads, program.kernel.local.size)
        block, thread = self._places(blocks)
        views = views_of(program, grid, block, thread, arguments)
        self.lanes = Lanes(views, block, global_memory, shared, local)
        self.of_block = np.lexsort((thread, block)).reshape(blocks, threads)
        """Where each block's threads are."""
        total = blocks * threads
        self.at = np.zeros(total, np.int64)
        """The run that each thread executes next; `len(runs)` when it has ended."""
        self.waits = np.full(total, -1, np.int64)
        """The barrier that each thread waits at, or -1."""
        self.needs = np.zeros(total, np.int64)
        """How many threads that barrier waits for; 0 for all."""
        self.executed = 0
        """Instructions, each counted once for all threads that execute it together."""
        self.of_warp = np.zeros(total // WARP, np.int64)
        """The same for each warp, as `at` has their threads: what a GPU issues for it."""

    def _places(self, blocks: int) -> tuple[Array, Array]:
        """The block of each thread, and its number there: block after block, or the first warps of
        all blocks, in some order, then their second ones."""
        if self.random is None:
            return np.repeat(np.arange(blocks), self.threads), np.tile(
                np.arange(self.threads), blocks
            )
        order = self.random.sample(range(blocks), blocks)
        block = np.tile(np.repeat(order, WARP), self.threads // WARP)
        warp = np.repeat(np.arange(self.threads // WARP), blocks * WARP)
        return block, warp * WARP + np.arange(len(block)) % WARP

    def run(self) -> None:
        """To the end of all threads.

        Raises:
            PtxError: an instruction did what a GPU would not allow, or threads wait for ever.
        """
        with np.errstate(all="ignore"):
            if self.random is None:
                while self._turn(0, len(self.at)):
                    pass
            else:
                while self._random_turn(self.random):
                    pass
        if (self.waits >= 0).any():
            raise PtxError(f"{int((self.waits >= 0).sum())} threads wait for ever at a barrier")

    def _random_turn(self, draw: random.Random) -> bool:
        """A turn for one of the warps of some neighbouring blocks, or of all of them."""
        blocks, warps = len(self.of_block), self.threads // WARP
        first, last = (
            sorted(draw.choices(range(blocks + 1), k=2)) if draw.random() < SPLIT else (0, blocks)
        )
        for warp in draw.sample(range(warps), warps):
            row = warp * blocks
            if last > first and self._turn((row + first) * WARP, (row + last) * WARP):
                return True
        return first > 0 or last < blocks

    def _turn(self, begin: int, end: int) -> bool:
        """Let those of some whole warps' threads that lag behind most execute one run. False if
        none can."""
        runs, lanes = self.program.runs, self.lanes
        at = np.where(self.waits[begin:end] < 0, self.at[begin:end], len(runs))
        index = int(at.min())
        if index == len(runs):
            return False
        chosen = at == index
        first = int(chosen.argmax()) // WARP * WARP
        last = len(chosen) - int(chosen[::-1].argmax()) // WARP * WARP
        chosen = chosen[first:last]
        lanes.begin, lanes.end = begin + first, begin + last
        lanes.mask = None if chosen.all() else chosen
        self._execute(runs[index])
        here = slice((begin + first) // WARP, (begin + last) // WARP)
        self.of_warp[here] += chosen.reshape(-1, WARP).any(axis=1) * (len(runs[index].steps) + 1)
        self._leave(runs[index], index)
        return True

    def _execute(self, run: Run) -> None:
        lanes = self.lanes
        for step, text in run.steps:
            try:
                step(lanes)
            except PtxError as error:
                raise PtxError(f"{error}: {text}") from None
        self.executed += len(run.steps) + 1

    def _leave(self, run: Run, index: int) -> None:
        own = slice(self.lanes.begin, self.lanes.end)
        active, end = self.lanes.active, run.end
        next_run = np.full(own.stop - own.start, index + 1)
        meant: Array = (
            active if end is None or end.guard is None else active & end.guard(self.lanes)
        )
        match end:
            case Jump():
                next_run[meant] = end.target
            case Exit():
                next_run[meant] = len(self.program.runs)
            case Barrier():
                self.waits[own][meant] = end.number
                self.needs[own][meant] = end.threads or 0
        np.copyto(self.at[own], next_run, where=active)
        if isinstance(end, Barrier | Exit):
            self._open(own)

    def _open(self, own: slice) -> None:
        """Let the threads go on for which everyone has come, in the blocks of a slice."""
        threads = self.of_block[np.unique(self.lanes.block[own.start : own.stop : WARP])]
        waits = self.waits[threads]
        ended = (self.at[threads] == len(self.program.runs)) & (waits < 0)
        for number in np.unique(waits[waits >= 0]):
            here = waits == number
            needed = np.where(here, self.needs[threads], 0).max(axis=1)
            come = np.where(needed > 0, here.sum(axis=1) >= needed, (here | ended).all(axis=1))
            self.waits[threads[here & come[:, None]]] = -1
