"""What the commands share: refuse, run on a device, keep and print."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from oea_server.lab.records.options import OptionError

if TYPE_CHECKING:
    import torch

    from oea_server.lab.bench.bandwidth import Reader


@contextmanager
def refusing() -> Iterator[None]:
    """Turn a bad option into one line on stderr and exit status 2."""
    try:
        yield
    except OptionError as error:
        print(f"oea-server: {error}", file=sys.stderr)
        raise typer.Exit(2) from None


def on_device(run: Callable[[torch.device, Reader], None], name: str) -> None:
    """Call `run` with the device to measure and a reader of its memory."""
    print(f"bench {name}: importing torch, measuring how fast memory reads", flush=True)
    # as our CPU platform has it; read when torch is imported
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    import torch

    from oea_server.lab.bench import bandwidth, timing

    device = timing.pick_device()
    with torch.inference_mode():
        run(device, bandwidth.Reader(device))


def keep(
    measured: dict[str, Any],
    command: str,
    device: torch.device,
    folder: Path | None,
    name: str,
    kind: str,
) -> None:
    """Complete a record with machine, versions and command; write it and its documents, and print
    them.

    Args:
        folder: where to; the machine's folder if None.
        name: of the files, without suffix.
        kind: of the logits; all but correlated ones are part of the name.
    """
    from oea_server.lab.bench import report
    from oea_server.lab.records import record

    complete = {
        "benchmark": measured["benchmark"],
        "command": command,
        "machine": record.machine(device),
        "versions": record.versions(),
    } | measured
    name = name if kind == "correlated" else f"{name}-{kind}"
    paths = report.save(complete, folder or record.default_folder(device), name)
    print(paths[1].read_text(encoding="utf-8"))
    print("kept: " + ", ".join(map(str, paths)))
    if len(paths) < 3:
        print("no picture: matplotlib is not installed")


def command_line(name: str, **given: object) -> str:
    """What to type to measure the same again: ``oea-server bench NAME --key value …``. Leave
    folders out."""
    flags = [text for key, value in given.items() for text in (f"--{key}", str(value))]
    return shlex.join(["oea-server", "bench", name, *flags])


def joined(values: Iterable[object]) -> str:
    """``1,8,16``."""
    return ",".join(map(str, values))
