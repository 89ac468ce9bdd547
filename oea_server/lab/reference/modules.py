"""The page `docs/modules.md`: every module with its docstring's first sentence, room by room."""

from __future__ import annotations

import ast
from pathlib import Path

from oea_server.lab.reference.arrows import MAY_IMPORT, SMALL
from oea_server.lab.reference.docstrings import first
from oea_server.lab.reference.page import DOCS, PACKAGE, item

PAGE = DOCS / "modules.md"
LAB = "lab."


def entries() -> list[str]:
    """A heading for each room, and under it an item for each module."""
    rooms = [room for room in MAY_IMPORT if folder(room).is_dir()]
    found = ["## Single files", "", *(_line(path, PACKAGE) for path in _single()), ""]
    for room in rooms:
        here = folder(room)
        modules = (path for path in modules_of(room) if path != here / "__init__.py")
        found += [f"## {room.replace('.', '/')}", "", item(said(here / "__init__.py"), "")]
        found += ["", *(_line(path, here) for path in modules), ""]
    return found


def folder(room: str) -> Path:
    """Where a room is, if it is more than a file."""
    return PACKAGE / room.replace(".", "/")


def modules_of(room: str) -> list[Path]:
    """The modules of a room, those of its own folders behind it."""
    found = folder(room).rglob("*.py")
    return sorted(found, key=lambda path: (len(path.relative_to(PACKAGE).parts), path))


def _single() -> list[Path]:
    files = [f"{room}.py" for room in (*MAY_IMPORT, *SMALL)]
    return sorted(PACKAGE / name for name in files if (PACKAGE / name).is_file())


def _line(path: Path, room: Path) -> str:
    return item(f"`{path.relative_to(room)}`: {said(path)}")


def said(path: Path) -> str:
    """The first sentence of a module's docstring.

    Raises:
        ValueError: the module has none.
    """
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    if not text:
        raise ValueError(f"{path} does not say what it is")
    return first(text)
