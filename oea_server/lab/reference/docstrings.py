"""Docstrings of modules, classes, functions and attributes, and their first sentences."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from oea_server.lab.reference import sentences
from oea_server.lab.reference.page import PACKAGE


def rooms() -> dict[str, list[Path]]:
    """A room, such as ``oea_server/engine`` -> its modules; ``oea_server`` has the rest."""
    found: dict[str, list[Path]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        inside = path.relative_to(PACKAGE.parent)
        found.setdefault("/".join(inside.parts[: min(2, len(inside.parts) - 1)]), []).append(path)
    return found


def of(source: str) -> Iterator[tuple[ast.Constant, str]]:
    """Each docstring of a module, and of what it holds: where it stands, and its text."""
    for node in ast.walk(ast.parse(source)):
        body = getattr(node, "body", None)
        described: ast.AST | None = None if isinstance(node, ast.If | ast.With) else node
        for each in body if isinstance(body, list) else []:
            match each:
                case ast.Expr(value=ast.Constant(value=str(text)) as place) if described:
                    yield place, text
            described = each if isinstance(each, ast.Assign | ast.AnnAssign) else None


def first(text: str) -> str:
    """A docstring's first sentence; empty if it has none."""
    paragraph = text.strip().split("\n\n", maxsplit=1)[0]
    return next(iter(sentences.split(" ".join(paragraph.split()))), "")


def wide(source: str, width: int) -> int:
    """Lines of docstrings above a width."""
    lines = source.splitlines()
    return sum(
        len(line) > width
        for place, _ in of(source)
        for line in lines[place.lineno - 1 : place.end_lineno]
    )
