"""What changed between two releases of SGLang where the plug-in touches it."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Iterator
from pathlib import Path

from oea_server.engine.seams import SEAMS

BESIDE = (
    "sglang.srt.layers.moe.topk.TopKConfig",
    "sglang.srt.layers.moe.topk.TopK",
    "sglang.srt.platforms.interface",
    "sglang.srt.plugins.hook_registry",
)
"""What is read of SGLang beside the seams."""
OPTIONS = "sglang.srt.server_args.ServerArgs"
GROUPS = "sglang/srt/arg_groups/fields"
"""Where the fields of `ServerArgs` are: from 0.5.21 on in classes of this folder."""


def symbols() -> list[str]:
    """Dotted names, each once: where the seams are in SGLang, and what else is read of it."""
    seams = (seam.target for seam in SEAMS if seam.target.startswith("sglang."))
    return list(dict.fromkeys([*seams, *BESIDE]))


def differences(old: Path, new: Path) -> Iterator[tuple[str, list[str]]]:
    """Each symbol with its unified diff, empty where nothing changed.

    Args:
        old: the folder with `sglang/` in it; and so `new`.
    """
    for symbol in symbols():
        before, after = source(old, symbol), source(new, symbol)
        diff = difflib.unified_diff(before, after, "before", "after", n=2, lineterm="")
        yield symbol, list(diff)[2:]


def source(root: Path, symbol: str) -> list[str]:
    """The lines of a module, a class or a function; none where it is not there."""
    parts = symbol.split(".")
    for cut in range(len(parts), 0, -1):
        path = root.joinpath(*parts[:cut]).with_suffix(".py")
        if path.is_file():
            break
    else:
        return []
    text = path.read_text(encoding="utf-8")
    node: ast.AST | None = ast.parse(text)
    for name in parts[cut:]:
        node = next((each for each in _defined(node) if each.name == name), None)
    if node is None:
        return []
    lines = text.splitlines()
    return lines if isinstance(node, ast.Module) else lines[node.lineno - 1 : node.end_lineno]  # type: ignore[attr-defined]


def _defined(
    node: ast.AST | None,
) -> Iterator[ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]:
    kinds = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    yield from (each for each in getattr(node, "body", ()) if isinstance(each, kinds))


def options(old: Path, new: Path) -> tuple[list[str], list[str]]:
    """SGLang's options that came, and those that went."""
    before, after = _fields(old), _fields(new)
    return sorted(after - before), sorted(before - after)


def _fields(root: Path) -> set[str]:
    """Names of the fields of `ServerArgs`.

    Raises:
        ValueError: there are none where fields are known to be.
    """
    trees = [ast.parse("\n".join(source(root, OPTIONS)))]
    trees += [ast.parse(path.read_text(encoding="utf-8")) for path in (root / GROUPS).glob("*.py")]
    classes = (node for tree in trees for node in tree.body if isinstance(node, ast.ClassDef))
    fields = (
        node.target for each in classes for node in each.body if isinstance(node, ast.AnnAssign)
    )
    found = {target.id for target in fields if isinstance(target, ast.Name)}
    if not found:
        raise ValueError(f"no options in {OPTIONS} and {GROUPS} of the SGLang in {root}")
    return found
