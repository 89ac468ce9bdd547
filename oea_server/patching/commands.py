"""The command `oea-server patch check|apply|revert|files`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NoReturn

import typer

from oea_server.patching import series
from oea_server.patching.installed import Installed, PatchError, find, none_for

app = typer.Typer(
    no_args_is_help=True, help="The routing seams inside the installed SGLang, in place of hooks."
)


@app.command()
def check() -> None:
    """Say whether SGLang is patched. Exit status 0: it is; 1: it is not, and could be; 2: it cannot
    be."""
    installed = look()
    print(f"SGLang {installed.version}: {describe(installed)}")
    for patch in installed.patches:
        print(f"  {patch.name}")
    if installed.state != "patched":
        raise typer.Exit(1)


@app.command()
def apply() -> None:
    """Patch SGLang. Servers that run go on as they are; the next launch takes the seams."""
    installed = look()
    try:
        changed = installed.apply()
    except PatchError as error:
        refuse(error)
    print(
        f"SGLang {installed.version}: "
        + (f"patched, {files(changed)}" if changed else "was patched already")
    )


@app.command()
def revert() -> None:
    """Bring SGLang back to what was released. The next launch hooks into it from outside."""
    installed = look()
    try:
        changed = installed.revert()
    except PatchError as error:
        refuse(error)
    print(
        f"SGLang {installed.version}: "
        + (f"as released, {files(changed)}" if changed else "was not patched")
    )


@app.command("files")
def list_files(version: str) -> None:
    """Print the patches for a version of SGLang, as git am takes them: patch files 0.5.23."""
    if not (found := series.paths(version)):
        refuse(PatchError(none_for(version)))
    for path in found:
        print(path)


def describe(installed: Installed) -> str:
    half = [file.path.name for file in installed.files if not file.is_patched]
    if installed.leftover:
        left = ", ".join(file.name for file in installed.leftover)
        return (
            f"as released; {left} was left behind by another, nothing imports it, and patch revert"
            " deletes it"
        )
    return {
        "patched": "patched",
        "original": "as released; oea-server patch apply would patch it",
        "half": (
            f"half patched, without {', '.join(half)}; oea-server patch apply or revert makes it"
            " whole"
        ),
    }[installed.state]


def files(changed: list[Path]) -> str:
    return f"{len(changed)} file{'s' if len(changed) > 1 else ''}"


def look() -> Installed:
    try:
        return find()
    except PatchError as error:
        refuse(error)


def refuse(error: PatchError) -> NoReturn:
    print(f"oea-server: {error}", file=sys.stderr)
    raise typer.Exit(2) from error
