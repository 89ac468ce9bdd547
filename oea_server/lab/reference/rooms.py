"""The rooms in CONTRIBUTING.md: what each is for, and which others it may import."""

from __future__ import annotations

from oea_server.lab.reference.arrows import MAY_IMPORT, SMALL
from oea_server.lab.reference.modules import folder, said
from oea_server.lab.reference.page import DOCS, PACKAGE, item

PAGE = DOCS.parent / "CONTRIBUTING.md"


def entries() -> list[str]:
    """An item for each room, the lowest first; single files that every room may import last."""
    rooms = [item(f"`{name(room)}`: {of_room(room)} {arrows(room)}") for room in MAY_IMPORT]
    small = [item(f"`{each}.py`: {said(PACKAGE / f'{each}.py')}") for each in SMALL]
    return [*rooms, *small, ""]


def name(room: str) -> str:
    """As a path below `oea_server/`."""
    path = room.replace(".", "/")
    return f"{path}/" if folder(room).is_dir() else f"{path}.py"


def of_room(room: str) -> str:
    """What it says of itself."""
    path = folder(room)
    return said(path / "__init__.py" if path.is_dir() else path.with_suffix(".py"))


def arrows(room: str) -> str:
    """Which rooms it imports, in the order of the list."""
    others = [f"`{name(each)}`" for each in MAY_IMPORT if each in MAY_IMPORT[room]]
    return f"Imports {', '.join(others)}." if others else "Imports no other room."
