"""PTX text taken apart: parameters, registers, shared variables and the statements of one
kernel."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import NamedTuple

COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
ENTRY = re.compile(r"\.entry\s+([\w$]+)\s*\((.*?)\)", re.DOTALL)
PARAMETER = re.compile(r"\.param\s+(?:\.align\s+\d+\s+)?\.(\w+)\b[^,]*?([\w$]+)\s*(?:,|$)")
VARIABLE = re.compile(
    r"\.(shared|local)\s+(?:\.align\s+(\d+)\s+)?\.(\w+)\s+([\w$]+)\s*(?:\[(\d*)\])?\s*;"
)
REGISTERS = re.compile(r"\.reg\s+\.(\w+)\s+(.*)", re.DOTALL)
LABEL = re.compile(r"([\w$]+)\s*:(?!:)")
GUARD = re.compile(r"@(!?)([%\w$.]+)\s+")
NAME = re.compile(r"[%$\w.]+")
LINE_DIRECTIVE = re.compile(r"\.(?:loc|file|section)\b[^\n]*")


class PtxError(Exception):
    """A kernel that the interpreter does not understand, or that did what a GPU would not allow."""


@dataclass(frozen=True, slots=True)
class Statement:
    """One instruction: `@!%p1 ld.global.b32 %r1, [%rd1+4];`."""

    text: str
    guard: str | None
    negated: bool
    opcode: str
    """`ld`"""
    modifiers: tuple[str, ...]
    """`("global", "b32")`; `shared::cta` is one of them."""
    operands: tuple[str, ...]
    """`("%r1", "[%rd1+4]")`; a vector in braces is one operand."""


class Layout(NamedTuple):
    """Variables in shared or local memory."""

    offsets: dict[str, int]
    """In bytes. An array without a length lies behind all others."""
    size: int
    """Bytes of those whose length is known."""


@dataclass(slots=True)
class Kernel:
    """One `.entry` of a PTX module."""

    name: str
    parameters: list[tuple[str, str]]
    """(name, type without the dot)."""
    shared: Layout = field(default_factory=lambda: Layout({}, 0))
    local: Layout = field(default_factory=lambda: Layout({}, 0))
    registers: dict[str, str] = field(default_factory=dict)
    """Register -> its declared type."""
    statements: list[Statement] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)
    """Label -> index of the statement that follows it."""


def parse(text: str) -> Kernel:
    """The first kernel of a PTX module.

    Raises:
        PtxError: there is none, or its text ends too early.
    """
    text = COMMENT.sub(" ", text)
    entry = ENTRY.search(text)
    if entry is None:
        raise PtxError("no .entry in this PTX")
    parameters = [(name, kind) for kind, name in PARAMETER.findall(entry[2].strip())]
    kernel = Kernel(entry[1], parameters)
    begin = text.index("{", entry.end())
    end = _Body(kernel, text).read(begin)
    kernel.shared, kernel.local = (_layout(space, text[:end]) for space in ("shared", "local"))
    return kernel


def _layout(space: str, text: str) -> Layout:
    offsets, size, unsized = {}, 0, []
    for where, alignment, kind, name, length in VARIABLE.findall(text):
        if where != space:
            continue
        element = int(kind[1:]) // 8
        to = int(alignment or element)
        if not length and f"{name}[" in text:
            unsized.append((name, to))
            continue
        offsets[name] = -(-size // to) * to
        size = offsets[name] + element * int(length or 1)
    return Layout(offsets | {name: -(-size // to) * to for name, to in unsized}, size)


class _Body:
    """Reads `{ … }`; registers that an inner block declares get names of their own."""

    def __init__(self, kernel: Kernel, text: str) -> None:
        self.kernel = kernel
        self.text = text
        self.scopes: list[dict[str, str]] = []
        self.blocks = 0

    def read(self, at: int) -> int:
        """From the opening brace to behind the closing one."""
        text = self.text
        while at < len(text):
            if text[at].isspace() or text[at] == ";":
                at += 1
            elif text[at] == "{":
                self.scopes.append({})
                self.blocks += 1
                at += 1
            elif text[at] == "}":
                self.scopes.pop()
                at += 1
                if not self.scopes:
                    return at
            elif found := LINE_DIRECTIVE.match(text, at):
                at = found.end()
            elif found := LABEL.match(text, at):
                self.kernel.labels[found[1]] = len(self.kernel.statements)
                at = found.end()
            else:
                at = self._until_semicolon(at)
        raise PtxError(f"the body of {self.kernel.name} has no end")

    def _until_semicolon(self, at: int) -> int:
        if self.text.startswith((".reqntid", ".maxntid", ".minnctapersm", ".maxnreg"), at):
            return self.text.index("\n", at)
        end = self.text.find(";", at)
        if end < 0:
            raise PtxError(f"no semicolon after {self.text[at : at + 40]!r}")
        text = " ".join(self.text[at:end].split())
        if text.startswith(".reg"):
            self._declare(text)
        elif not text.startswith("."):  # .shared is read elsewhere, .pragma by nobody
            self.kernel.statements.append(self._statement(text))
        return end + 1

    def _declare(self, text: str) -> None:
        kind, names = REGISTERS.match(text).groups()  # type: ignore[union-attr]
        for declared in names.split(","):
            name, _, count = declared.strip().rstrip(">").partition("<")
            for own in [name] if not count else [f"{name}{i}" for i in range(int(count))]:
                unique = own if len(self.scopes) == 1 else f"{own}.{self.blocks}"
                self.scopes[-1][own] = unique
                self.kernel.registers[unique] = kind

    def _statement(self, text: str) -> Statement:
        renamed = (
            NAME.sub(lambda found: self._unique(found[0]), text) if len(self.scopes) > 1 else text
        )
        guard = GUARD.match(renamed)
        rest = renamed[guard.end() :] if guard else renamed
        opcode, _, operands = rest.partition(" ")
        head, *modifiers = re.split(r"\.(?!:)", opcode)
        return Statement(
            text,
            guard[2] if guard else None,
            bool(guard and guard[1]),
            head,
            tuple(modifiers),
            tuple(split(operands)),
        )

    def _unique(self, name: str) -> str:
        for scope in reversed(self.scopes):
            if name in scope:
                return scope[name]
        return name


def split(operands: str) -> list[str]:
    """At the commas outside braces and brackets."""
    parts, depth, begin = [], 0, 0
    for at, character in enumerate(operands):
        if character in "{[(":
            depth += 1
        elif character in "}])":
            depth -= 1
        elif character == "," and not depth:
            parts.append(operands[begin:at].strip())
            begin = at + 1
    last = operands[begin:].strip()
    return [*parts, last] if last else parts
