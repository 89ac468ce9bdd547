"""The source of the installed SGLang's models, read without importing any: which class builds which
router."""

from __future__ import annotations

import ast
from functools import cache
from importlib.metadata import distribution
from pathlib import Path
from typing import NamedTuple

PACKAGE = "sglang.srt.models"
Name = tuple[str, str]
"""A module under PACKAGE and what it defines at its top."""


class Module(NamedTuple):
    bodies: dict[str, ast.AST]
    """What it defines: classes, functions, constants."""
    uses: dict[str, frozenset[str]]
    """Names in a definition; an attribute of a name as `name.attribute`."""
    imports: dict[str, Name]
    """A name -> where it comes from; ("module", "") for an imported module."""


@cache
def modules() -> dict[str, Module]:
    folder = Path(str(distribution("sglang").locate_file("sglang"))) / "srt" / "models"
    files = {
        ".".join(path.relative_to(folder).with_suffix("").parts): path
        for path in folder.rglob("*.py")
    }
    return {name: _read(name, path) for name, path in sorted(files.items())}


def _read(name: str, path: Path) -> Module:
    tree = ast.parse(path.read_text(encoding="utf-8-sig"))
    bodies: dict[str, ast.AST] = {}
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            bodies[node.name] = node
        elif isinstance(node, ast.Assign):
            bodies |= {target.id: node for target in node.targets if isinstance(target, ast.Name)}
    imports: dict[str, Name] = {}
    for inner in ast.walk(tree):
        if isinstance(inner, ast.ImportFrom):
            base = f"{PACKAGE}.{name}".rsplit(".", inner.level)[0] + "." if inner.level else ""
            source = base + (inner.module or "")
            imports |= {
                (each.asname or each.name): (_inside(source), each.name) for each in inner.names
            }
        elif isinstance(inner, ast.Import):
            imports |= {
                each.asname: (_inside(each.name), "") for each in inner.names if each.asname
            }
    return Module(bodies, {each: _names(body) for each, body in bodies.items()}, imports)


def _inside(source: str) -> str:
    return source.removeprefix(PACKAGE).lstrip(".") if source.startswith(PACKAGE) else ""


def _names(node: ast.AST) -> frozenset[str]:
    found = {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}
    attributes = (each for each in ast.walk(node) if isinstance(each, ast.Attribute))
    return frozenset(found | {f"{_id(each.value)}.{each.attr}" for each in attributes})


def _id(node: ast.AST) -> str:
    return node.id if isinstance(node, ast.Name) else ""


def calls(block: str, *functions: str) -> list[ast.Call]:
    """The calls of these functions in a class, by `MODULE.CLASS`."""
    module, _, name = block.rpartition(".")
    found = (
        each for each in ast.walk(modules()[module].bodies[name]) if isinstance(each, ast.Call)
    )
    return [each for each in found if _id(each.func) in functions]


@cache
def builders() -> frozenset[str]:
    """Classes that construct a `TopK`; where their module has none, those that run experts without
    one."""
    found = set()
    for module, each in modules().items():
        classes = [name for name, body in each.bodies.items() if isinstance(body, ast.ClassDef)]
        for functions in (
            ("TopK", "HashTopK"),
            ("FusedMoE", "get_moe_impl_class", "StandardTopKOutput"),
        ):
            blocks = [
                f"{module}.{name}" for name in classes if calls(f"{module}.{name}", *functions)
            ]
            found |= set(blocks)
            if blocks:
                break
    return frozenset(found)


@cache
def architectures() -> dict[str, frozenset[str]]:
    """Each `EntryClass` from which builders can be reached, and these builders; more than it ever
    builds."""
    found = {}
    for module, each in modules().items():
        for entry in each.uses.get("EntryClass", ()):
            start = _resolve(module, entry)
            if start is not None and entry != "EntryClass":
                found[start[1]] = frozenset(_reached(start)) & builders()
    return {name: blocks for name, blocks in found.items() if blocks}


def _reached(start: Name) -> set[str]:
    waiting, seen = [start], {start}
    while waiting:
        module, name = waiting.pop()
        for used in modules()[module].uses[name]:
            target = _resolve(module, used)
            if target is not None and target not in seen:
                seen.add(target)
                waiting.append(target)
    return {f"{module}.{name}" for module, name in seen}


@cache
def _resolve(module: str, name: str) -> Name | None:
    for _ in range(8):  # imported through that many modules at most
        if module not in modules():
            return None
        if name in modules()[module].bodies:
            return module, name
        first, _, rest = name.partition(".")
        source, original = modules()[module].imports.get(first, ("", ""))
        if rest:
            source, name = ".".join(filter(None, (source, original))), rest
        else:
            name = original
        module = source
    return None
