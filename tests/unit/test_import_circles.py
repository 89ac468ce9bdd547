"""Files of the package import each other in one direction: what is imported at the top of a file
leads nowhere back to it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "oea_server"


def modules(package: Path) -> dict[str, Path]:
    """The files of a package, by the name that they are imported by."""
    return {
        ".".join((package.name, *path.relative_to(package).with_suffix("").parts)).removesuffix(
            ".__init__"
        ): path
        for path in package.rglob("*.py")
    }


def at_the_top(tree: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """What is imported outside functions, for type checkers alone too."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from at_the_top(node)


def imports(path: Path, known: dict[str, Path]) -> set[str]:
    """Which of the known modules a file imports at its top."""
    found = set[str]()
    for node in at_the_top(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(each.name for each in node.names)
        elif node.module:
            names = {f"{node.module}.{each.name}" for each in node.names}
            found |= (names & known.keys()) or {node.module}
    return found & known.keys()


def circle(package: Path) -> list[str]:
    """Modules each of which imports the next, the last the first; none if there are none such."""
    known = modules(package)
    graph = {name: imports(path, known) - {name} for name, path in known.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_no_circle() -> None:
    assert circle(PACKAGE) == []


@pytest.mark.parametrize("late", [False, True])
def test_a_circle_is_found_unless_a_function_imports(late: bool, tmp_path: Path) -> None:
    package = tmp_path / "oea"
    package.mkdir()
    (package / "one.py").write_text("import os\nfrom oea import two\n")
    back = "from oea.one import os\n"
    (package / "two.py").write_text(f"def later():\n    {back}" if late else back)
    assert sorted(set(circle(package))) == ([] if late else ["oea.one", "oea.two"])
