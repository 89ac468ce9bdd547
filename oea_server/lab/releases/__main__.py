"""The command `python -m oea_server.lab.releases verify|make|diff`."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from oea_server.lab.releases import judging, making, sources, touched
from oea_server.patching import series

app = typer.Typer(
    no_args_is_help=True,
    help="SGLang's releases: the patch series held to them, made for a new one, and what changed.",
)
RECORD = series.FOLDER / "verified.json"
Wheels = Annotated[Path, typer.Option(help="Folder of releases; what is missing is downloaded.")]


@app.command()
def verify(wheels: Wheels = sources.KEPT) -> None:
    """Hold every series to its release, and write patches/verified.json."""
    found: dict[str, Any] = {}
    before = None
    for version in series.versions():
        release = _release(version, wheels)
        try:
            verdict = judging.judge(version, release.root)
        except judging.UnlikeError as error:
            _refuse(error)
        changes = judging.unlike(version, before or version)
        found[version] = {"wheel": release.sha256, **verdict, "unlike_the_one_before": changes}
        print(f"SGLang {version}: {len(verdict['files'])} files as git makes them, and back")
        before = version
    today = datetime.now(UTC).date().isoformat()
    lines = ",\n".join(f" {json.dumps(version)}: {json.dumps(found[version])}" for version in found)
    RECORD.write_text(f'{{"on": "{today}", "releases": {{\n{lines}\n}}}}\n', encoding="utf-8")


@app.command()
def make(
    new: str, old: Annotated[str, typer.Option("--from")], work: Path, wheels: Wheels = sources.KEPT
) -> None:
    """Make the series of a NEW release from that of the one before, in a git repository in WORK."""
    releases = _release(new, wheels), _release(old, wheels)
    try:
        own = making.make(*releases, work)
    except making.ConflictError as error:
        _refuse(error)
    print(f"SGLang {new}: of its own are {', '.join(own) or 'none'}; now: verify")


@app.command()
def diff(old: str, new: str, wheels: Wheels = sources.KEPT) -> None:
    """Print what changed between two releases where the plug-in touches SGLang."""
    before, after = _release(old, wheels).root, _release(new, wheels).root
    changed = 0
    for symbol, lines in touched.differences(before, after):
        if lines:
            changed += 1
            print("\n".join([f"=== {symbol}", *lines, ""]))
    came, went = touched.options(before, after)
    print(f"{changed} of {len(touched.symbols())} symbols differ")
    print(f"options that came: {', '.join(came) or 'none'}")
    print(f"options that went: {', '.join(went) or 'none'}")


def _release(version: str, wheels: Path) -> sources.Release:
    try:
        return sources.release(version, wheels)
    except sources.FetchError as error:
        _refuse(error)


def _refuse(error: Exception) -> NoReturn:
    print(f"oea-server: {error}", file=sys.stderr)
    raise typer.Exit(1) from error


if __name__ == "__main__":
    app()
