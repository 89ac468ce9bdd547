"""Which texts an expression of the package's source can be: constants, with `…` where a value goes.

A name is followed to what is assigned to it, a call to what the function returns, an attribute to
what any object of the package is given under that name.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable
from itertools import product
from math import prod
from typing import Any, NamedTuple

from oea_server.lab.reference.source import (
    Function,
    Package,
    Place,
    local_values,
    parameters,
    returned,
)

HOLE = "…"
SPELLINGS = 6
"""Of one text, how many are told apart; beyond it, what has several is a hole."""
PERCENT = re.compile(r"%[sd]")
REASONS = (
    *("problem", "problems", "inactive", "doubt", "reason", "unhandled", "why", "refused"),
    *("clash", "frozen", "fixed", "missing", "unfit", "instead"),
)
"""Fields of objects that say why something is refused, or vanilla, and what to do."""
SAME = ("join", "get", "pop", "fromkeys")
"""Methods that give what is in their arguments."""
OF_OBJECT = ("get", "pop", "values", "items", "splitlines", "strip", "replace")
"""Methods that give what is in their object."""
PASSING = (
    *("oneline", "str", "filter", "list", "tuple", "sorted", "next", "dict", "map", "set"),
    *("enumerate", "zip", "reversed"),
)
"""Functions that hand on texts that they are given."""


class Text(NamedTuple):
    """A text that the package can print."""

    text: str
    module: str
    line: int


def _parts_of_dict(node: Any) -> list[ast.expr | None]:
    return [*node.values, *node.keys]


CHILDREN: dict[type[ast.expr], Callable[[Any], Iterable[ast.expr | None]]] = {
    ast.IfExp: lambda node: (node.body, node.orelse),
    ast.BoolOp: lambda node: node.values,
    ast.Dict: _parts_of_dict,
    ast.DictComp: lambda node: (node.key, node.value),
    **dict.fromkeys((ast.List, ast.Tuple, ast.Set), lambda node: node.elts),
    **dict.fromkeys((ast.ListComp, ast.SetComp, ast.GeneratorExp), lambda node: (node.elt,)),
    **dict.fromkeys(
        (ast.Starred, ast.NamedExpr, ast.Await, ast.Subscript), lambda node: (node.value,)
    ),
}
"""Expressions that hold what their parts do."""


class Texts:
    """Follows expressions through a package."""

    def __init__(self, package: Package) -> None:
        self.package = package
        self.aside: list[Text] = []
        """What stands in the holes of the texts so far: parts of a line, from elsewhere."""
        self.asked: list[tuple[Place, str]] = []
        """Parameters that were come across: what callers give them is wanted."""
        self._known: dict[int, list[Text]] = {}
        self._kinds: dict[type[ast.expr], Callable[[Any, Place], list[Text]]] = {
            ast.Constant: self._constant,
            ast.JoinedStr: self._written,
            ast.BinOp: self._added,
            ast.Name: self._named,
            ast.Attribute: self._attribute,
            ast.Call: self._called,
        }

    def of(self, node: ast.expr | None, place: Place) -> list[Text]:
        """All that an expression can be, or can hold, as text."""
        if node is None:
            return []
        if id(node) not in self._known:
            self._known[id(node)] = []  # what leads back to itself adds nothing
            if parts := CHILDREN.get(type(node)):
                found = [text for part in parts(node) for text in self.of(part, place)]
            else:
                found = self._kinds.get(type(node), lambda *_: [])(node, place)
            self._known[id(node)] = list(dict.fromkeys(found))
        return self._known[id(node)]

    def of_function(self, function: Function, inside: Place) -> list[Text]:
        """All that a function returns, or yields, as text."""
        return [text for value in returned(function) for text in self.of(value, inside)]

    def _constant(self, node: ast.Constant, place: Place) -> list[Text]:
        if not isinstance(node.value, str):
            return []
        return [Text(PERCENT.sub(HOLE, node.value), place.module.name, node.lineno)]

    def _written(self, node: ast.JoinedStr, place: Place) -> list[Text]:
        return self._in_a_row(node.values, node, place)

    def _added(self, node: ast.BinOp, place: Place) -> list[Text]:
        if not isinstance(node.op, ast.Add):
            return []
        sides = (node.left, node.right)
        if any(isinstance(side, ast.Constant | ast.JoinedStr) for side in sides):
            return self._in_a_row(sides, node, place)
        return [text for side in sides for text in self.of(side, place)]

    def _in_a_row(self, nodes: Iterable[ast.expr], whole: ast.expr, place: Place) -> list[Text]:
        """Texts of several parts: what a part is, if that is known here, else a hole."""
        parts = []
        for node in nodes:
            value = node.value if isinstance(node, ast.FormattedValue) else node
            texts = self.of(value, place) if self._tells(value) else []
            spellings = list(dict.fromkeys(each.text for each in texts))
            if spellings and self._is_known(value, place):
                parts.append(spellings)
            else:
                self.aside += texts
                parts.append([HOLE])
        if prod(map(len, parts)) > SPELLINGS:
            parts = [each if len(each) == 1 else [HOLE] for each in parts]
        return [Text("".join(each), place.module.name, whole.lineno) for each in product(*parts)]

    @staticmethod
    def _tells(node: ast.expr) -> bool:
        """Whether what stands in a hole is a part of what is said, and no value."""
        return not isinstance(node, ast.Attribute) or node.attr in REASONS or node.attr.isupper()

    def _is_known(self, node: ast.expr, place: Place) -> bool:
        """Whether a part is a constant: as it stands there, or of a module."""
        if isinstance(node, ast.Attribute):
            return node.attr.isupper() and self.package.found(node, place.module) is not None
        if isinstance(node, ast.Name):
            return node.id.isupper() and self.package.found(node, place.module) is not None
        return isinstance(node, ast.Constant | ast.JoinedStr | ast.IfExp)

    def _named(self, node: ast.Name, place: Place) -> list[Text]:
        for i, function in enumerate(place.around):
            here = Place(place.module, place.around[i:])
            if values := local_values(function).get(node.id):
                return [text for value in values for text in self.of(value, here)]
            if node.id in parameters(function):
                self.asked.append((here, node.id))
                return []
        return self._of_module(node, place)

    def _of_module(self, node: ast.expr, place: Place) -> list[Text]:
        found = self.package.found(node, place.module)
        if found is None:
            return []
        module, name = found
        if (function := module.functions.get(name)) is not None:  # handed on, to be called
            return self.of_function(function, Place(module, (function,)))
        home = Place(module, ())
        return [text for value in module.values.get(name, ()) for text in self.of(value, home)]

    def _attribute(self, node: ast.Attribute, place: Place) -> list[Text]:
        if self.package.found(node, place.module) is not None:
            return self._of_module(node, place)
        fields = self.package.fields.get(node.attr, ())
        return [text for value, where in fields for text in self.of(value, where)]

    def _called(self, node: ast.Call, place: Place) -> list[Text]:
        called = self.package.called(node, place)
        found = [text for each in called for text in self.of_function(*each)]
        if not called and isinstance(node.func, ast.Name):
            found += self._named(node.func, place)
        method = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        if isinstance(node.func, ast.Attribute) and method in OF_OBJECT:
            found += self.of(node.func.value, place)
        name = method or getattr(node.func, "id", "")
        if method in SAME or (name in PASSING and not method) or name.endswith("Error"):
            found += [text for each in node.args for text in self.of(each, place)]
        return found
