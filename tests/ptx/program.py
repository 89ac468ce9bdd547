"""A kernel made ready to run: straight runs of steps, each with what ends it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

from tests.ptx import bits, compare, convert, integers, matrices, memory, move, spaces, warps
from tests.ptx.decode import Decoder
from tests.ptx.lanes import Reader, Step
from tests.ptx.parse import Kernel, PtxError, Statement
from tests.ptx.values import literal

INSTRUCTIONS = (bits, compare, convert, integers, matrices, memory, move, spaces, warps)
"""Imported for the opcodes that they announce."""

BRANCHES = ("bra",)
EXITS = ("ret", "exit")
BARRIERS = ("bar", "barrier")
WAITS = re.compile(r"(?:cta\.)?sync(?:\.aligned)?")


class Jump(NamedTuple):
    """Ends a run: to `target`, for the threads whose guard holds; the others fall through."""

    guard: Reader | None
    target: int


class Exit(NamedTuple):
    """Ends a run, and its threads."""

    guard: Reader | None


class Barrier(NamedTuple):
    """Ends a run: threads wait until `threads` of their block (None: all) have come to barrier
    `number`."""

    guard: Reader | None
    number: int
    threads: int | None


@dataclass(slots=True)
class Run:
    """Steps that any threads execute from the first to the last, together."""

    steps: list[tuple[Step, str]]
    """Each with its text, for errors."""
    end: Jump | Exit | Barrier | None
    """None falls through to the next run."""


@dataclass(slots=True)
class Program:
    """A kernel's runs, in the order of its text, and the views that its steps need: see
    `Decoder`."""

    kernel: Kernel
    runs: list[Run]
    slots: dict[tuple[str, str, int], int]


def program_of(kernel: Kernel) -> Program:
    """Decode a kernel.

    Raises:
        PtxError: an instruction that the interpreter does not know; its text is in the message.
    """
    decoder = Decoder(kernel)
    heads = _heads(kernel)
    number = {head: index for index, head in enumerate(heads)}
    runs = []
    for begin, end in zip(heads, [*heads[1:], len(kernel.statements)], strict=True):
        run = Run([], None)
        for statement in kernel.statements[begin:end]:
            if _ends_run(statement):
                run.end = _end(decoder, statement, number)
            elif statement.opcode not in BARRIERS:  # bar.warp: a warp's threads run together anyway
                run.steps.append((decoder.step(statement), statement.text))
        runs.append(run)
    return Program(kernel, runs, decoder.slots)


def _heads(kernel: Kernel) -> list[int]:
    """Where runs begin: at the start, at targets of branches, and behind what ends a run."""
    targets = {kernel.labels.get(s.operands[0]) for s in kernel.statements if s.opcode in BRANCHES}
    behind = {at + 1 for at, statement in enumerate(kernel.statements) if _ends_run(statement)}
    return sorted(
        at for at in {0} | targets | behind if at is not None and at < len(kernel.statements)
    )


def _ends_run(statement: Statement) -> bool:
    if statement.opcode in BARRIERS:
        return statement.modifiers[:1] != ("warp",)
    return statement.opcode in BRANCHES + EXITS


def _end(decoder: Decoder, statement: Statement, number: dict[int, int]) -> Jump | Exit | Barrier:
    guard = decoder.predicate(statement) if statement.guard else None
    if statement.opcode in EXITS:
        return Exit(guard)
    if statement.opcode in BRANCHES:
        if (
            statement.modifiers not in ((), ("uni",))
            or statement.operands[0] not in decoder.kernel.labels
        ):
            raise PtxError(f"unknown branch: {statement.text}")
        at = decoder.kernel.labels[statement.operands[0]]
        return Jump(guard, number.get(at, len(number)))
    if not WAITS.fullmatch(".".join(statement.modifiers)):
        raise PtxError(f"unknown barrier: {statement.text}")
    counts = [int(literal(operand, "u32")[0]) for operand in statement.operands]
    return Barrier(guard, counts[0], counts[1] if len(counts) > 1 else None)
