"""From statements to steps: operands become array views, opcodes become functions on them.

A module of instructions announces its opcodes with `@handles("add", "sub")`. An opcode, a modifier
or a type that no handler claims ends the run by name; nothing is skipped in silence.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

import numpy as np

from tests.ptx.lanes import Lanes, Reader, Step, Writer
from tests.ptx.parse import Kernel, PtxError, Statement
from tests.ptx.values import PAIRS, TYPES, Array, literal, narrowed, type_of, widened

SPECIAL = {
    **{f"%{name}.{axis}": "u32" for name in ("tid", "ntid", "ctaid", "nctaid") for axis in "xyz"},
    **dict.fromkeys(("%laneid", "%warpid", "%nwarpid"), "u32"),
    **{f"%lanemask_{order}": "u32" for order in ("eq", "lt", "le", "gt", "ge")},
}
ADDRESS = re.compile(r"\[\s*([%$\w.]+)\s*(?:\+\s*(-?\w+))?\s*\]")

Handler = Callable[["Decoder", Statement], Step]
HANDLERS: dict[str, Handler] = {}


def handles(*opcodes: str) -> Callable[[Handler], Handler]:
    """Announce a handler: it turns a statement with one of these opcodes into a step."""

    def announce(handler: Handler) -> Handler:
        HANDLERS.update(dict.fromkeys(opcodes, handler))
        return handler

    return announce


def only(statement: Statement, *allowed: str) -> None:
    """Raise PtxError where a statement has a modifier that its handler does not know."""
    for modifier in statement.modifiers:
        if modifier not in allowed and modifier not in TYPES:
            raise PtxError(f"unknown modifier .{modifier}")


def parts(operand: str) -> list[str]:
    """`{%r1, %r2}` -> its registers; any other operand is itself alone."""
    return [part.strip() for part in operand.strip("{} ").split(",")]


class Decoder:
    """Where a kernel's registers are seen from.

    `slots` numbers the views that its steps need: (register, type, which element of it).
    """

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.slots: dict[tuple[str, str, int], int] = {}

    def step(self, statement: Statement) -> Step:
        """What a statement does.

        Raises:
            PtxError: the interpreter does not know it.
        """
        handler = HANDLERS.get(statement.opcode)
        try:
            if handler is None:
                raise PtxError(f"unknown instruction {statement.opcode}")
            step = handler(self, statement)
        except PtxError as error:
            raise PtxError(f"{error}: {statement.text}") from None
        return step if statement.guard is None else self._guarded(step, statement)

    def predicate(self, statement: Statement) -> Reader:
        """The guard of a statement that has one."""
        return self.reader(("!" if statement.negated else "") + str(statement.guard), "pred")

    def _guarded(self, step: Step, statement: Statement) -> Step:
        guard = self.predicate(statement)

        def run(lanes: Lanes) -> None:
            before, wanted = lanes.mask, guard(lanes)
            wanted = wanted if before is None else wanted & before
            if wanted.all():
                step(lanes)
            elif wanted.any():
                lanes.mask = wanted
                step(lanes)
                lanes.mask = before

        return run

    def slot(self, register: str, kind: str, element: int = 0) -> int:
        """The number of a view."""
        return self.slots.setdefault((register, kind, element), len(self.slots))

    def declared(self, register: str) -> str:
        """The type of a register. Raises PtxError for what is none."""
        kind = SPECIAL.get(register) or self.kernel.registers.get(register)
        if kind is None:
            raise PtxError(f"unknown register {register}")
        return kind

    def is_register(self, operand: str) -> bool:
        return operand in self.kernel.registers or operand in SPECIAL

    def reader(self, operand: str, kind: str, half: int = 0) -> Reader:
        """How to read an operand as a type: [threads of the slice], or [1] where all have the same.

        Args:
            half: which of a register's values, where it holds several of the type.
        """
        if kind == "pred" and operand.startswith("!"):
            plain = self.reader(operand[1:], kind)
            return lambda lanes: ~plain(lanes)
        if self.is_register(operand):
            self.declared(operand)
            slot = self.slot(operand, kind, half)
            if kind == "bf16":
                return lambda lanes: widened(lanes.slots[slot][lanes.begin : lanes.end])
            if kind == "f16":
                return lambda lanes: lanes.slots[slot][lanes.begin : lanes.end].astype(np.float32)
            return lambda lanes: lanes.slots[slot][lanes.begin : lanes.end]
        value = self._constant(operand, kind)
        return lambda lanes: value

    def _constant(self, operand: str, kind: str) -> Array:
        for layout in (self.kernel.shared, self.kernel.local):
            if operand in layout.offsets:
                return np.array([layout.offsets[operand]], type_of(kind))
        value = literal({"WARP_SZ": "32"}.get(operand, operand), kind)
        if kind == "bf16":
            return widened(value)
        return value.astype(np.float32) if kind == "f16" else value

    def writer(self, operand: str, kind: str, half: int | None = None) -> Writer:
        """How to write a value of a type; a wider register takes it extended."""
        if operand == "_":
            return lambda lanes, value: None
        declared = self.declared(operand)
        if type_of(declared).itemsize > type_of(kind).itemsize and half is None and kind != "pred":
            kind = ("s" if kind[0] == "s" else "u") + str(8 * type_of(declared).itemsize)
        slot = self.slot(operand, kind, half or 0)

        def write(lanes: Lanes, value: Array) -> None:
            target = lanes.slots[slot][lanes.begin : lanes.end]
            if lanes.mask is None:
                target[...] = value
            else:
                np.copyto(target, value, casting="unsafe", where=lanes.mask)

        if kind == "bf16":
            return lambda lanes, value: write(lanes, narrowed(value))
        return write

    def address(self, operand: str) -> Reader:
        """`[%rd1+4]` -> addresses, uint64."""
        found = ADDRESS.fullmatch(operand)
        if found is None:
            raise PtxError(f"unknown address {operand}")
        offset = np.array([int(found[2] or "0", 0) % (1 << 64)], np.uint64)
        if not self.is_register(found[1]):
            base = self._constant(found[1], "u64") + offset
            return lambda lanes: base
        kind = "u64" if type_of(self.declared(found[1])).itemsize == 8 else "s32"
        register = self.reader(found[1], kind)
        return lambda lanes: register(lanes).astype(np.uint64) + offset

    def pure(
        self,
        function: Callable[..., Array],
        target: str,
        target_kind: str,
        sources: Iterable[tuple[str, str]],
        half: int | None = None,
    ) -> Step:
        """A step that writes a function of its sources, thread by thread.

        Args:
            sources: (operand, type).
            half: which of a register's values, of instructions on pairs.
        """
        write = self.writer(target, target_kind, half)
        match [self.reader(operand, kind, half or 0) for operand, kind in sources]:
            case [a]:
                return lambda lanes: write(lanes, function(a(lanes)))
            case [a, b]:
                return lambda lanes: write(lanes, function(a(lanes), b(lanes)))
            case [a, b, c]:
                return lambda lanes: write(lanes, function(a(lanes), b(lanes), c(lanes)))
            case readers:
                return lambda lanes: write(lanes, function(*[read(lanes) for read in readers]))

    def elementwise(self, statement: Statement, function: Callable[..., Array], kind: str) -> Step:
        """`pure` where all operands have one type; pairs of halves are done one after the other."""
        target, *sources = statement.operands
        if kind not in PAIRS:
            return self.pure(function, target, kind, [(source, kind) for source in sources])
        if not all(self.is_register(source) for source in sources):
            raise PtxError("a literal pair")
        own = PAIRS[kind]
        low, high = (
            self.pure(function, target, own, [(s, own) for s in sources], half) for half in (0, 1)
        )

        def both(lanes: Lanes) -> None:
            low(lanes)
            high(lanes)

        return both
