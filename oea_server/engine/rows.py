"""Rows of a step, as a layer's router gets them. Each row has a slot, is a token or a draft, and
may ask for something."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import lru_cache
from typing import Any

import torch

from oea_server.engine import drafts, gathered, halves
from oea_server.engine.device_rows import DeviceRows
from oea_server.engine.drafts import Drafts
from oea_server.engine.gathered import Ranks
from oea_server.engine.graphs import Graphs
from oea_server.engine.halves import Half
from oea_server.engine.step import Step

WHOLE = nullcontext()
"""Entered in every layer of every step that runs as one."""


class Rows:
    """The rows of a process's steps.

    Args:
        real_rows: SGLang's own count of real rows on a device, which it keeps current. None if it
            is not patched.
    """

    def __init__(
        self, graphs: Graphs, real_rows: Callable[[torch.device], torch.Tensor] | None = None
    ) -> None:
        self.graphs = graphs
        self.real_rows = real_rows
        self.forward_batch: Any = None
        """SGLang's own batch of the step that runs now."""
        self.ranks: Ranks | None = None
        """Ranks that have batches of their own; None where all ranks have the same batches."""
        self.halved = False
        """Whether SGLang may run a step as two (`engine.halves`)."""
        self.half: Half | None = None
        """What a router gets now, if it is a half of the step."""
        self.captured = drafts.NONE
        """The drafts of the graphs that are captured now."""
        self.memory = DeviceRows()
        """What graphs read of it."""
        self._trees: torch.Tensor | None = None
        """Which guesses lead to which of the step's rows, where no graph reads it; None if its
        drafts are no trees."""
        self._told: Step | None = None
        """The step that stands in `memory`."""

    @property
    def adopted(self) -> bool:
        """Whether a model was taken over."""
        return self.memory.num_real is not None

    def adopt(self, device: torch.device) -> None:
        """Serve a model on a device."""
        self.memory.adopt(device, self.real_rows(device) if self.real_rows else None)

    def read_on_device(self) -> None:
        """Have graphs read what rows are."""
        self.memory.keep(masked=self.ranks is not None and self.ranks.together)

    def slots(self, step: Step) -> tuple[int, ...]:
        """How many rows each rank has in what a router gets, in a step in which they come
        together."""
        captured = self.graphs.rows_of(max(step.of_ranks), step.per_request)
        return gathered.slots_of(step, self.forward_batch, captured)

    def padded(self, step: Step) -> int:
        """The rows that a router gets: those of the graph that the step replays, if there is
        one."""
        if self.half is not None:
            return self.half.rows
        return (
            sum(self.slots(step))
            if step.of_ranks
            else self.graphs.rows_of(step.batch, step.per_request)
        )

    def num_real(self, step: Step, rows: int) -> int | torch.Tensor | None:
        """How many of `rows` are tokens: None for all; on the device where graphs read. Or which of
        them, a mask."""
        if self.half is not None:
            fewer = self.half.tokens if self.half.tokens < rows else None
            return self.half.real if self.memory.read else fewer
        if step.of_ranks:
            in_graph = step.capturing or not gathered.is_padded(self.forward_batch)
            mask = self.memory.mask
            return mask[:rows] if mask is not None and in_graph else self._marked(step)
        if self.memory.read:
            return self.memory.num_real
        return None if rows == step.batch else step.batch

    def drafts(self, step: Step, rows: int) -> torch.Tensor | None:
        """Which of `rows` are drafts, and how deep: None if none is; where graphs read it if there
        are any."""
        if step.per_request == 1:
            return None
        of = Drafts(step.per_request, step.tree)
        if step.of_ranks and gathered.is_padded(self.forward_batch):
            return gathered.depths(self.slots(step), of, self.memory.device)
        first = 0 if self.half is None else self.half.start
        for told in (self.memory.depths, self._trees):
            if told is not None:
                return told[first : first + rows]
        return drafts.depths(rows, of, self.memory.device)

    def asked(self, step: Step, rows: int) -> torch.Tensor | None:
        """What each of `rows` asks for itself (`oea_server.routing.route`): None if none does;
        where graphs read it."""
        if self.half is not None:
            return self._asked_by_half(step, self.half)
        asked = self.memory.asked
        if asked is not None and not (
            step.asked and step.of_ranks and gathered.is_padded(self.forward_batch)
        ):
            return asked[:rows]
        return self._asked_by(step, rows).to(self.memory.device) if step.asked else None

    def _asked_by_half(self, step: Step, half: Half) -> torch.Tensor | None:
        mine = slice(half.start, half.start + half.rows)
        if self.memory.asked is not None:
            return self.memory.asked[mine]
        if not step.asked:
            return None
        return self._asked_by(step, max(step.batch, mine.stop))[mine].to(self.memory.device)

    def requests(self, step: Step) -> int:
        """Requests whose rows a router gets: a schedule is read at this number."""
        return step.requests if self.half is None else self.half.tokens // step.per_request

    def halves(self, step: Step) -> tuple[int, ...]:
        """The tokens of each half of a step of this rank; empty if SGLang runs it as one."""
        if not self.halved or self.forward_batch is None:
            return ()
        longest = max(gathered.counts_of(self.forward_batch), default=step.batch)
        graph = self.graphs.rows_of(longest, step.per_request)
        replays = (graph, step.per_request) in self.graphs.sizes
        return halves.of_batch(self.forward_batch, step, graph if replays else None)

    def routing(
        self, step: Step | None, rows: int, real: torch.Tensor | None
    ) -> AbstractContextManager[None]:
        """Entered while a router chooses: it may get a half of the step.

        Args:
            rows: those of its logits.
            real: how many of them are tokens, as SGLang has told the router; None if it has not.
        """
        if step is None or not step.halves:
            return WHOLE
        return self._routing(halves.half_of(self.forward_batch, step, rows, real))

    @contextmanager
    def _routing(self, half: Half | None) -> Iterator[None]:
        self.half = half
        try:
            yield
        finally:
            self.half = None

    def tell_device(self, step: Step) -> bool:
        """Write what captured graphs read of a step, on the stream that replays them. Whether it
        was new to them."""
        if not self.adopted:
            return False
        if fresh := self._told != step:
            self._tell_step(step)
            self._told = step
        self._trees = None
        # where ranks come together, each knows its own trees alone
        if step.tree and not step.of_ranks:
            self._tell_trees(step)
        return fresh

    def _tell_trees(self, step: Step) -> None:
        """Write who follows whom in the drafts, which are other trees in each step."""
        rows, of = max(step.batch, self.padded(step)), Drafts(step.per_request, step.tree)
        least, into = drafts.depths(rows, of, self.memory.device), self.memory.depths
        if into is None:
            into = self._trees = least.clone()
        if not drafts.write_trees(self.forward_batch, step.batch, into):
            into[: step.batch].copy_(least[: step.batch])

    def _tell_step(self, step: Step) -> None:
        memory, mask = self.memory, self.memory.mask
        assert memory.num_real is not None
        if step.of_ranks and mask is not None and (rows := self.padded(step)) <= len(mask):
            mask[:rows].copy_(self._marked(step))
        elif self.real_rows is None or step.per_request > 1 or self.ranks is not None:
            # a patched SGLang writes it for plain decode steps, and no idle rank's
            memory.num_real.fill_(step.batch)
        if memory.read and step.per_request > 1:
            memory.write_depths(Drafts(step.per_request, step.tree))
        asked = None
        if step.asked and memory.asked is not None:
            rows = self.padded(step)
            asked = self._asked_by(step, rows) if rows <= len(memory.asked) else None
        memory.write_asked(asked)

    def tell_anew(self) -> None:
        """Write the next step whatever it is: it may be padded, or count, otherwise than one like
        it."""
        self._told = None

    def _asked_by(self, step: Step, rows: int) -> torch.Tensor:
        slots = self.slots(step) if step.of_ranks else (rows,)
        return asked_by(
            step.asked,
            step.per_request,
            step.of_ranks or (step.batch,),
            slots,
            self.memory.device.type == "cuda",
        )

    def _marked(self, step: Step) -> torch.Tensor:
        return gathered.marked(step.of_ranks, self.slots(step), self.memory.device)


@lru_cache(maxsize=16)
def asked_by(
    asked: tuple[int, ...],
    per_request: int,
    counts: tuple[int, ...],
    slots: tuple[int, ...],
    pinned: bool,
) -> torch.Tensor:
    """What requests ask, for each of their rows side by side, and for the padding behind them. [sum
    of slots] int64. Not to be written to.

    Args:
        counts: rows of each rank that are tokens or drafts.
        slots: its rows, the padding included.
    """
    every = torch.tensor(asked, dtype=torch.int64).repeat_interleave(per_request).split(counts)
    given = torch.zeros(sum(slots), dtype=torch.int64, pin_memory=pinned)
    for place, each in zip(given.split(slots), every, strict=True):
        place[: len(each)] = each
    return given
