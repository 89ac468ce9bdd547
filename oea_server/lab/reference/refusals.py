"""Every refusal that the package can print, found in its source: python -m
oea_server.lab.reference.refusals prints them.

A refusal is what is raised with words, written to stderr, logged as a warning or an error, answered
as an "error" or by a function named refuse, returned by a function that is named for problems, or
kept as the reason why something is refused or vanilla.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from oea_server.lab.reference.page import PACKAGE
from oea_server.lab.reference.source import Function, Package, Place, parameters
from oea_server.lab.reference.source_texts import HOLE, REASONS, Text, Texts

ERRORS_OF_CODE = ("AttributeError", "KeyboardInterrupt", "Exit")
"""What is raised for Python's own machinery, with nothing to say to anybody."""

WORD = re.compile(r"(?<![\w./-])(?:[A-Z]?[a-z']+|[A-Z]{2,})(?![\w/-]|\.\w)")
"""A plain one, or an abbreviation; no name of code, option or file."""

APART = {
    "oea_server.controller.metrics": "help texts of metrics",
    "oea_server.schema_words": "bounds, in words",
    "oea_server.observe.metrics": "help texts of metrics",
    "oea_server.absent.cards": "where the facts of a card are from",
    "oea_server.lab.bench.bandwidth": "what was measured, in words",
    "oea_server.lab.bench.experts": "what was measured, in words",
    "oea_server.lab.qualify.judge": "verdicts of a report",
    "oea_server.lab.qualify.notes": "remarks of a report",
    "oea_server.lab.demo.training": "for who trains the demo model anew",
    "oea_server.lab.recipes": "for who writes a page of this repository anew",
    "oea_server.lab.releases": "for who makes the series of patches anew",
    "oea_server.lab.reference": "for who writes a page of this repository anew",
}
"""Modules whose texts are no refusals that an operator meets, each with the reason."""

PARTS = {
    *("refusing to start", "a decode step of", "gave up", "the model …", "expert … and … more"),
    *("the default", "its key", "the header", "it is there"),
    *("SGLang's own kernels, without our routing", "our routing, without shadow's counting"),
    *("SGLang's own kernels, with our counting beside them", "exact: exact; auto: auto"),
    *("not there", "a number"),
}
"""What stands in the middle of lines that have rows: it tells nothing by itself."""


def refusals(root: Path = PACKAGE) -> list[Text]:
    """All of them, with `…` where a value goes, in the order of modules and lines; but for PARTS
    and APART."""
    return told(every_text(root))


def told(texts: list[Text]) -> list[Text]:
    """Those that are lines, and an operator's to meet."""
    return [
        each
        for each in texts
        if each.text not in PARTS and not each.module.startswith(tuple(APART))
    ]


def every_text(root: Path) -> list[Text]:
    """All that a package says to whoever asked for too much.

    Args:
        root: the package's folder.
    """
    paths = sorted(root.rglob("*.py"))
    package = Package(root.parent, (path for path in paths if "models" not in path.parts))
    texts = Texts(package)
    found: list[Text] = []
    for node, place in package.walk():
        for value in printed(node):
            found += texts.of(value, place)
    for name in REASONS:
        for value, place in package.fields.get(name, ()):
            found += texts.of(value, place)
    for function, inside in package.functions():
        if function.name.rpartition("_")[-1] in REASONS or function.name == "problem_of":
            found += texts.of_function(function, inside)
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
    return sorted(kept, key=lambda each: (each.module, each.line, each.text))


def says(text: str, words: int) -> bool:
    """Whether a text has so many plain words beside its values; else it is a name, or a part."""
    return " " in text and len(WORD.findall(text.replace(HOLE, " "))) >= words


def printed(node: ast.AST) -> Iterator[ast.expr]:
    """What a statement or call says to whoever asked for too much."""
    if isinstance(node, ast.Raise) and node.exc is not None:
        if not isinstance(node.exc, ast.Call):
            yield node.exc
        elif name_of(node.exc) not in ERRORS_OF_CODE:
            # an error that is made here, or by the function that is called
            yield from (node.exc, *node.exc.args, *(each.value for each in node.exc.keywords))
    elif isinstance(node, ast.Dict):
        keys = [getattr(each, "value", None) for each in node.keys]
        yield from (value for key, value in zip(keys, node.values, strict=True) if key == "error")
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
            yield from node.args


def name_of(call: ast.Call) -> str:
    """The last part of what is called."""
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def given(package: Package, function: Function, name: str) -> Iterator[tuple[ast.expr, Place]]:
    """What callers give a function's argument, or what it is by itself."""
    names = parameters(function)
    yield from ((each, package.place_of(function)) for each in default_of(function, name))
    star = function.args.vararg is not None and function.args.vararg.arg == name
    for call, place in package.calls[id(function)]:
        at = names.index(name) - (names[:1] in (["self"], ["cls"]))
        yield from ((each, place) for each in call.args[at : None if star else at + 1])
        yield from ((each.value, place) for each in call.keywords if each.arg == name)


def default_of(function: Function, name: str) -> list[ast.expr]:
    """What an argument is where a caller says nothing."""
    given = function.args
    places = [*given.posonlyargs, *given.args]
    pairs = [
        *zip(places[len(places) - len(given.defaults) :], given.defaults, strict=True),
        *zip(given.kwonlyargs, given.kw_defaults, strict=True),
    ]
    return [value for place, value in pairs if place.arg == name and value is not None]


def main() -> None:
    for each in refusals():
        print(f"{each.module}:{each.line}  {each.text}")


if __name__ == "__main__":
    main()
