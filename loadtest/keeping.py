"""What the commands have in common: how a record is kept, and how a run ends."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import typer


@contextmanager
def refusing() -> Iterator[None]:
    """One line instead of a traceback for what a user can put right."""
    from loadtest.client import BROKEN

    try:
        yield
    except (ValueError, RuntimeError, OSError, *BROKEN) as error:
        end(str(error) or type(error).__name__)
    except ExceptionGroup as group:  # of tasks: all for the same reason
        first = group.exceptions[0]
        if not isinstance(first, BROKEN):
            raise
        end(f"a request was not answered: {type(first).__name__}: {first}")


def typed(name: str, /, *words: str, **given: object) -> str:
    """A command as somebody would type it."""
    flags = [text for key, value in given.items() for text in (f"--{key}", str(value))]
    return shlex.join(["python", "-m", "loadtest", name, *words, *flags])


def provenance(command: str) -> dict[str, Any]:
    """What every record says of how it was made."""
    import torch

    from oea_server.lab.records import record

    return {
        "command": command,
        "machine": record.machine(torch.device("cpu")),
        "versions": record.versions(),
    }


def folder_of(out: Path | None) -> Path:
    """Where this machine's records are kept."""
    import torch

    from oea_server.lab.records import record

    return out or record.default_folder(torch.device("cpu"))


def keep(
    record: dict[str, Any], folder: Path, name: str, page: Callable[[dict[str, Any]], str]
) -> tuple[Path, dict[str, Any]]:
    """Write a record as JSON and its page as Markdown, and print the page.

    Returns:
        The JSON's path, and the record as it was kept.
    """
    from oea_server.lab.records import files

    path = folder / f"{name}.json"
    kept = files.write(path, record)
    shown = page(kept)
    path.with_suffix(".md").write_text(shown, encoding="utf-8")
    print(f"kept: {path}, {path.with_suffix('.md')}\n{shown}")
    return path, kept


def fail(*lines: str) -> NoReturn:
    """What was looked for did not hold."""
    for line in lines:
        print(f"missed: {line}", file=sys.stderr)
    raise typer.Exit(1)


def end(line: str) -> NoReturn:
    """It cannot be done as asked."""
    print(f"loadtest: {line}", file=sys.stderr)
    raise typer.Exit(2)
