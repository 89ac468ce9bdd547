"""Runs a program's blocks: all threads in step where their order is plain, or warp by warp in a random one."""

from __future__ import annotations

import random

import numpy as np

from tests.ptx.global_memory import GlobalMemory
from tests.ptx.lanes import WARP, Lanes
from tests.ptx.parse import PtxError
from tests.ptx.program import Barrier, Exit, Jump, Program, Run
from tests.ptx.registers import Grid, views_of
from tests.ptx.shared_memory import SharedMemory
from tests.ptx.values import Array


class Machine:
    """One launch.

    Args:
        threads: of a block, a multiple of 32.
        arguments: the bits of each parameter.
        shared_bytes: shared memory of a block, the arrays without a length included.
        seed: None runs the threads that lag behind most first, of all blocks at once. A number lets
            the warps of all blocks take turns at random: each runs to its next branch, label or
            barrier. What a barrier should have put in order then comes out another way.
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
        shared = SharedMemory(blocks, max(shared_bytes, program.kernel.shared_bytes))
        views = views_of(program, grid, threads, arguments)
        self.lanes = Lanes(views, np.repeat(np.arange(blocks), threads), global_memory, shared)
        total = blocks * threads
        self.at = np.zeros(total, np.int64)
        """The run that each thread executes next; `len(runs)` when it has ended."""
        self.waits = np.full(total, -1, np.int64)
        """The barrier that each thread waits at, or -1."""
        self.opened = False
        """Whether the last turn has opened a barrier."""
        self.executed = 0
        """Instructions, each counted once for all threads that execute it together."""

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
                self._shuffled(self.random)
        if (self.waits >= 0).any():
            raise PtxError(f"{int((self.waits >= 0).sum())} threads wait for ever at a barrier")

    def _shuffled(self, draw: random.Random) -> None:
        ready = list(range(len(self.at) // WARP))
        while ready:
            turn = draw.randrange(len(ready))
            warp = ready[turn]
            self.opened = False
            if not self._turn(warp * WARP, warp * WARP + WARP):
                ready[turn] = ready[-1]
                ready.pop()
            if self.opened:
                of_block = self.threads // WARP
                first = warp // of_block * of_block
                ready += [other for other in range(first, first + of_block) if other not in ready]

    def _turn(self, begin: int, end: int) -> bool:
        """Let those of some whole warps' threads that lag behind most execute one run. False if none can."""
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
        meant: Array = active if end is None or end.guard is None else active & end.guard(self.lanes)
        match end:
            case Jump():
                next_run[meant] = end.target
            case Exit():
                next_run[meant] = len(self.program.runs)
            case Barrier():
                self.waits[own][meant] = end.number
        np.copyto(self.at[own], next_run, where=active)
        if isinstance(end, Barrier | Exit):
            self._open(own, None if isinstance(end, Exit) else end.threads)

    def _open(self, own: slice, expected: int | None) -> None:
        """Let the threads go on for which everyone has come."""
        first, last = own.start // self.threads, -(-own.stop // self.threads)
        blocks = slice(first * self.threads, last * self.threads)
        waits = self.waits[blocks].reshape(-1, self.threads)
        ended = (self.at[blocks] == len(self.program.runs)).reshape(-1, self.threads)
        for number in np.unique(waits[waits >= 0]):
            here = waits == number
            if expected is None:
                come = (here | (ended & (waits < 0))).all(axis=1)
            else:
                come = here.sum(axis=1) >= expected
            if come.any():
                self.opened = True
                waits[here & come[:, None]] = -1
