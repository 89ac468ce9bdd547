"""Every refusal that the package can print, found in its source: python -m
oea_server.lab.reference.refusals prints them.

A refusal is what is raised with words, written to stderr, logged as a warning or an error, answered
by a function named refuse, or kept as the reason why something is refused or vanilla.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from oea_server.lab.reference.page import ROOT
from oea_server.lab.reference.source import Function, Package, Place, parameters
from oea_server.lab.reference.source_texts import HOLE, REASONS, Text, Texts

ERRORS_OF_CODE = ("AttributeError", "KeyboardInterrupt", "Exit")
"""What is raised for Python's own machinery, with nothing to say to anybody."""

WORD = re.compile(r"(?<![\w./-])(?:[A-Z]?[a-z']+|[A-Z]{2,})(?![\w/-]|\.\w)")
"""A plain one, or an abbreviation; no name of code, option or file."""

APART = {
    "oea_server.absent.cards": "where the facts of a card are from",
    "oea_server.controller.law": "why it moves, not why it refuses; the quality floor is no rung",
    "oea_server.lab.qualify.judge": "verdicts of a report",
    "oea_server.lab.qualify.notes": "remarks of a report",
    "oea_server.lab.demo.training": "for who trains the demo model anew",
    "oea_server.lab.recipes": "for who writes a page of this repository anew",
    "oea_server.lab.reference": "for who writes a page of this repository anew",
}
"""Modules whose texts are no refusals that an operator meets, each with the reason."""


def refusals(root: Path = ROOT) -> list[Text]:
    """All of them, with `…` where a value goes, in the order of modules and lines."""
    paths = sorted((root / "oea_server").rglob("*.py"))
    package = Package(root, (path for path in paths if "models" not in path.parts))
    texts = Texts(package)
    found: list[Text] = []
    for node, place in package.walk():
        for value in printed(node):
            found += texts.of(value, place)
    for name in REASONS:
        for value, place in package.fields.get(name, ()):
            found += texts.of(value, place)
    followed: set[tuple[int, str]] = set()
    while texts.asked:
        place, name = texts.asked.pop()
        if (each := (id(place.around[0]), name)) not in followed:
            followed.add(each)
            for value, where in given(package, place.around[0], name):
                found += texts.of(value, where)
    kept = {
        *(each for each in found if says(each.text, 2)),
        *(each for each in texts.aside if says(each.text, 3)),
    }
    return sorted(
        (each for each in kept if not each.module.startswith(tuple(APART))),
        key=lambda each: (each.module, each.line, each.text),
    )


def says(text: str, words: int) -> bool:
    """Whether a text has so many plain words beside its values; else it is a name, or a part."""
    return len(WORD.findall(text.replace(HOLE, " "))) >= words


def printed(node: ast.AST) -> Iterator[ast.expr]:
    """What a statement or call says to whoever asked for too much."""
    if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
        if name_of(node.exc) not in ERRORS_OF_CODE:
            yield from node.exc.args
            yield from (each.value for each in node.exc.keywords)
    elif isinstance(node, ast.Call):
        name = name_of(node)
        to_stderr = name in ("print", "echo") and any(
            each.arg in ("file", "err") for each in node.keywords
        )
        if name == "refuse" or to_stderr:
            yield from node.args
        elif ast.unparse(node.func) == "store.set":
            yield from node.args  # what ranks end for, told to the others
        elif name in ("warning", "error") and "logger" in ast.unparse(node.func):
            yield from node.args[:1]


def name_of(call: ast.Call) -> str:
    """The last part of what is called."""
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def given(package: Package, function: Function, name: str) -> Iterator[tuple[ast.expr, Place]]:
    """What callers give a function's argument."""
    names = parameters(function)
    star = function.args.vararg is not None and function.args.vararg.arg == name
    for call, place in package.calls[id(function)]:
        bound = names[:1] in (["self"], ["cls"]) and isinstance(call.func, ast.Attribute)
        at = names.index(name) - bound
        yield from ((each, place) for each in call.args[at : None if star else at + 1])
        yield from ((each.value, place) for each in call.keywords if each.arg == name)


def main() -> None:
    for each in refusals():
        print(f"{each.module}:{each.line}  {each.text}")


if __name__ == "__main__":
    main()
