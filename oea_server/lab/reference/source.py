"""The package's source as trees: what a name, a call and an attribute can stand for.

The source is read, not run.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

Function = ast.FunctionDef | ast.AsyncFunctionDef
GATHERING = ("append", "extend", "add", "insert")
"""Methods that put their arguments into a list or set."""


class Place(NamedTuple):
    """Where an expression stands: its module, and the functions around it, innermost first."""

    module: Module
    around: tuple[Function, ...]

    def inside(self, function: Function) -> Place:
        """Of what a function's body says, which stands here itself."""
        return Place(self.module, (function, *self.around))


class Module:
    """One file: what its names are."""

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self.tree = ast.parse(path.read_text(encoding="utf-8"))
        self.functions = {each.name: each for each in self.tree.body if isinstance(each, Function)}
        self.classes = {
            each.name: each for each in self.tree.body if isinstance(each, ast.ClassDef)
        }
        self.values: dict[str, list[ast.expr]] = defaultdict(list)
        for statement in self.tree.body:
            for name_of, value in assigned(statement):
                self.values[name_of].append(value)
        self.imports: dict[str, tuple[str, str]] = {}
        """Name -> the module, and the name in it, or none."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.ImportFrom | ast.Import):
                of = (node.module or "") if isinstance(node, ast.ImportFrom) else ""
                for each in node.names:
                    self.imports[each.asname or each.name] = (
                        (of, each.name) if of else (each.name, "")
                    )

    def maker_of(self, name: str) -> Function | None:
        """The `__init__` of a class."""
        body = self.classes[name].body if name in self.classes else []
        functions = (each for each in body if isinstance(each, Function))
        return next((each for each in functions if each.name == "__init__"), None)


class Package:
    """All its files."""

    def __init__(self, root: Path, modules: Iterable[Path]) -> None:
        """Args:
        root: the folder that holds the package's.
        """
        self.modules: dict[str, Module] = {}
        for path in modules:
            name = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
            self.modules[name] = Module(name, path)
        self.methods: dict[str, list[tuple[Function, Place]]] = defaultdict(list)
        self.fields: dict[str, list[tuple[ast.expr, Place]]] = defaultdict(list)
        """What attributes of any object are given."""
        self.calls: dict[int, list[tuple[ast.Call, Place]]] = defaultdict(list)
        """The calls of each function, by its id."""
        self._places: dict[int, Place] = {}
        for module in self.modules.values():
            self._place(module.tree, Place(module, ()))
        for node, place in self.walk():
            if isinstance(node, ast.ClassDef):
                self._class(node, place)
        for node, place in self.walk():
            if isinstance(node, ast.Assign | ast.AnnAssign):
                self._attributes(node, place)
            elif isinstance(node, ast.Call):
                self._call(node, place)

    def walk(self) -> Iterator[tuple[ast.AST, Place]]:
        """Every node with its place."""
        for module in self.modules.values():
            for node in ast.walk(module.tree):
                yield node, self._places[id(node)]

    def place_of(self, node: ast.AST) -> Place:
        """Where a node stands."""
        return self._places[id(node)]

    def functions(self) -> Iterator[tuple[Function, Place]]:
        """Every function, with the place of what its body says."""
        for node, place in self.walk():
            if isinstance(node, Function):
                yield node, place.inside(node)

    def found(self, node: ast.expr, module: Module) -> tuple[Module, str] | None:
        """The module, and the name there, that a name or MODULE.NAME stands for."""
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            home = self._module(node.value.id, module)
            return None if home is None else self.found(ast.Name(node.attr), home)
        if not isinstance(node, ast.Name):
            return None
        if node.id in {*module.functions, *module.classes, *module.values}:
            return module, node.id
        of, name = module.imports.get(node.id, ("", ""))
        home = self.modules.get(of)
        if home is None or home is module or not name:
            return None
        return self.found(ast.Name(name), home)

    def called(self, node: ast.Call, place: Place) -> list[tuple[Function, Place]]:
        """The package's functions that a call may run."""
        if isinstance(node.func, ast.Name):
            for i, around in enumerate(place.around):
                if inner := inner_functions(around).get(node.func.id):
                    return [(inner, Place(place.module, place.around[i:]).inside(inner))]
        found = self.found(node.func, place.module)
        if found is not None:
            function = found[0].functions.get(found[1]) or found[0].maker_of(found[1])
            return [] if function is None else [(function, Place(found[0], (function,)))]
        if isinstance(node.func, ast.Attribute) and not self._is_foreign(node.func.value, place):
            return self.methods.get(node.func.attr, [])
        return []

    def _module(self, name: str, module: Module) -> Module | None:
        of, within = module.imports.get(name, ("", ""))
        return self.modules.get(f"{of}.{within}" if within else of)

    def _is_foreign(self, node: ast.expr, place: Place) -> bool:
        """Whether something is another package's module or class."""
        if not isinstance(node, ast.Name) or node.id not in place.module.imports:
            return False
        own = next(iter(self.modules)).partition(".")[0]
        return place.module.imports[node.id][0].partition(".")[0] != own

    def _place(self, node: ast.AST, place: Place) -> None:
        self._places[id(node)] = place
        inside = place.inside(node) if isinstance(node, Function) else place
        for child in ast.iter_child_nodes(node):
            self._place(child, inside)

    def _class(self, node: ast.ClassDef, place: Place) -> None:
        for each in node.body:
            if isinstance(each, Function):
                self.methods[each.name].append((each, place.inside(each)))
            for name, value in assigned(each):
                self.fields[name].append((value, place))

    def _attributes(self, node: ast.Assign | ast.AnnAssign, place: Place) -> None:
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        for each in [part for target in targets for part in ast.walk(target)]:
            if isinstance(each, ast.Attribute) and node.value is not None:
                self.fields[each.attr].append((node.value, place))

    def _call(self, node: ast.Call, place: Place) -> None:
        for function, _ in self.called(node, place):
            self.calls[id(function)].append((node, place))
        found = self.found(node.func, place.module)
        of = None if found is None else found[0].classes.get(found[1])
        names = [] if of is None else _fields(of)
        for name, value in zip(names, node.args, strict=False):
            self.fields[name].append((value, place))
        replaces = isinstance(node.func, ast.Attribute) and node.func.attr == "_replace"
        for keyword in node.keywords:
            if keyword.arg and (keyword.arg in names or replaces):
                self.fields[keyword.arg].append((keyword.value, place))


def _fields(of: ast.ClassDef) -> list[str]:
    annotated = (each.target for each in of.body if isinstance(each, ast.AnnAssign))
    return [target.id for target in annotated if isinstance(target, ast.Name)]


@cache
def local_values(function: Function) -> dict[str, list[ast.expr]]:
    """What the names of a function are given in it."""
    found: dict[str, list[ast.expr]] = defaultdict(list)
    for node in ast.walk(function):
        for name, value in assigned(node):
            found[name].append(value)
    return found


@cache
def inner_functions(function: Function) -> dict[str, Function]:
    """Those that are defined in a function, by name."""
    nodes = (node for node in ast.walk(function) if node is not function)
    return {node.name: node for node in nodes if isinstance(node, Function)}


def parameters(function: Function) -> list[str]:
    """The names of a function's arguments, in order."""
    given = function.args
    star = [given.vararg] if given.vararg else []
    return [each.arg for each in (*given.posonlyargs, *given.args, *star, *given.kwonlyargs)]


def returned(function: Function) -> Iterator[ast.expr]:
    """What a function, without those inside it, returns or yields."""
    waiting: list[ast.AST] = list(function.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Return | ast.Yield | ast.YieldFrom) and node.value is not None:
            yield node.value
        if not isinstance(node, Function | ast.Lambda | ast.ClassDef):
            waiting += ast.iter_child_nodes(node)


def assigned(node: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """Names that a statement or expression gives a value, each with an expression that holds it."""
    if isinstance(node, ast.Assign):
        for target in node.targets:
            yield from _unpacked(target, node.value)
    elif isinstance(node, ast.AnnAssign | ast.AugAssign | ast.NamedExpr) and node.value is not None:
        yield from _unpacked(node.target, node.value)
    elif isinstance(node, ast.For | ast.AsyncFor | ast.comprehension):
        yield from _unpacked(node.target, node.iter)
    elif (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.attr in GATHERING
    ):
        yield from ((node.func.value.id, argument) for argument in node.args)


def _unpacked(target: ast.expr, value: ast.expr) -> Iterator[tuple[str, ast.expr]]:
    if isinstance(target, ast.Name):
        yield target.id, value
    elif isinstance(target, ast.Starred | ast.Subscript):
        yield from _unpacked(target.value, value)
    elif isinstance(target, ast.Tuple | ast.List):
        values = value.elts if isinstance(value, ast.Tuple | ast.List) else []
        pairs = len(values) == len(target.elts)
        for i, each in enumerate(target.elts):
            yield from _unpacked(each, values[i] if pairs else value)
