"""Which room imports which: arrows point one way, and only some rooms know SGLang or torch's
serving."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "oea_server"
SMALL = {"addresses", "oneline", "provenance", "folders", "schema_words", "terminal", "shipped"}
"""Single files that say one thing and import none of the rooms below."""
MAY_IMPORT: dict[str, set[str]] = {
    "routing": set(),
    "access": set(),
    "client": {"access"},
    "tiers": {"routing"},
    "settings": {"access", "routing", "tiers"},
    "command_line": {"settings"},
    "observe": {"access", "routing", "settings", "tiers"},
    "controller": {"observe", "settings"},
    "engine": {"access", "controller", "observe", "routing", "settings", "tiers"},
    "cpu": {"engine", "routing"},
    "patching": set(),
    "serve": {"access", "command_line", "controller", "engine", "observe", "settings"},
    "doctor": {"command_line", "cpu", "engine", "serve", "settings"},
    "absent": {"command_line", "doctor", "engine", "serve", "settings"},
    "cli": {"absent", "client", "doctor", "patching", "serve", "settings"},
    # the laboratory, above all of them, which none of them imports
    "lab.records": {"routing"},
    "lab.bench": {"client", "cpu", "engine", "lab.demo", "lab.records", "routing"},
    "lab.demo": {"client", "lab.records"},
    "lab.recipes": {"engine"},
    "lab.qualify": {"client", "lab.records", "settings"},
    "lab.reference": {"controller", "engine", "observe", "settings"},
    "lab.quality": {
        "client",
        "controller",
        "engine",
        "lab.bench",
        "lab.demo",
        "lab.records",
        "observe",
        "routing",
        "settings",
    },
}
KNOW_SGLANG = {"absent", "engine", "cpu", "doctor", "patching", "serve", "lab.bench", "lab.demo"}


def imports(path: Path) -> Iterator[str]:
    """The modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module == "oea_server":
            yield from (f"oea_server.{each.name}" for each in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def room(*parts: str) -> str:
    return ".".join(parts[: 2 if parts[0] == "lab" else 1])


def room_of(path: Path) -> str:
    return room(*path.relative_to(PACKAGE).with_suffix("").parts)


def files() -> list[Path]:
    return [
        path
        for path in PACKAGE.rglob("*.py")
        if room_of(path) not in ("__init__", "__main__", "patches", "lab.__init__")
    ]


def test_arrows_point_one_way() -> None:
    wrong = [
        f"{path.relative_to(PACKAGE)} imports {target}"
        for path in files()
        for module in imports(path)
        if module.startswith("oea_server.")
        and (target := room(*module.split(".")[1:])) != (here := room_of(path))
        if target not in SMALL | MAY_IMPORT.get(here, set())
    ]
    assert wrong == []


def test_nothing_that_may_be_imported_imports_back() -> None:
    """No circle between rooms."""

    def reach(room: str) -> set[str]:
        found: set[str] = set()
        open_ = [room]
        while open_:
            for each in MAY_IMPORT.get(open_.pop(), set()) - found:
                found.add(each)
                open_.append(each)
        return found

    assert [room for room in MAY_IMPORT if room in reach(room)] == []


def test_few_rooms_know_sglang() -> None:
    knowing = {
        room_of(path)
        for path in files()
        for module in imports(path)
        if module.split(".")[0] == "sglang"
    }
    assert knowing <= KNOW_SGLANG


def test_small_files_import_no_room() -> None:
    assert not [
        (path, module)
        for path in files()
        if room_of(path) in SMALL
        for module in imports(path)
        if module.startswith("oea_server.") and module.split(".")[1] not in SMALL
    ]
