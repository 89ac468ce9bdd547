"""From what is wanted to a verdict: find the server, play, judge, keep."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import requests
import torch

from oea_server.client import key
from oea_server.client.remote import Remote
from oea_server.lab.qualify import against, compact, judge, marks, pages, power, target
from oea_server.lab.qualify.asking import AskingError, Manner
from oea_server.lab.qualify.candidates import Candidate
from oea_server.lab.qualify.keeping import Kept
from oea_server.lab.qualify.play import Run, play
from oea_server.lab.qualify.target import Target
from oea_server.lab.qualify.tasks import TaskFile
from oea_server.lab.records import record as records

CONFIDENCE = 0.95
FAULTS = (AskingError, ValueError, RuntimeError, OSError, requests.RequestException)
"""What ends a run with one line; `asking`, `target`, `tasks` and `keeping` say which."""


class Wanted(NamedTuple):
    """What is to be shown, and how.

    Args:
        margin: of accuracy that may be lost, a share of 1.
        rounds: at most.
        seeds: answers of each arm to each task, from `seed` on.
        folder: where everything is kept.
        against: an older record.
        command: what to type for the same again.
    """

    tasks: TaskFile
    candidates: list[Candidate]
    margin: float
    max_tokens: int
    temperature: float
    completions: bool
    concurrency: int
    rounds: int
    seeds: int
    seed: int
    folder: Path
    against: Path | None
    command: str

    def plan(self) -> dict[str, Any]:
        """What a record says of the plan, without the server."""
        return {
            "tasks": {
                "file": self.tasks.name,
                "sha256": self.tasks.sha256,
                "number": len(self.tasks.tasks),
            },
            "candidates": [each._asdict() for each in self.candidates],
            "margin": self.margin,
            "confidence": CONFIDENCE,
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "completions": self.completions,
            "concurrency": self.concurrency,
            "rounds": self.rounds,
            "seeds": self.seeds,
            "seed": self.seed,
        }


class Where(NamedTuple):
    """The server: at a URL, or started here from a model and flags."""

    url: str | None
    key_file: Path | None
    model: str | None
    flags: tuple[str, ...]


def qualify(wanted: Wanted, where: Where) -> int:
    """Play and judge; the exit code.

    Raises:
        FAULTS: one line.
        KeyboardInterrupt: the server has its knobs back.
    """
    older = None if wanted.against is None else against.read(wanted.against, wanted.plan())
    print(
        power.before(len(wanted.tasks.tasks), wanted.margin, CONFIDENCE, wanted.seeds), flush=True
    )
    with _server(where, wanted.concurrency) as server:
        found = target.examine(server)
        plan = wanted.plan()
        kept = Kept(wanted.folder, {**plan, "model": found.model, "settings": found.settings})
        target.rehearse(found, wanted.candidates)

        def so_far() -> list[str]:
            return judge.so_far(
                {"plan": plan, "answers": marks.marked(kept.answers, wanted.tasks.tasks)}
            )

        play(found, run_of(wanted, found), kept, so_far)
    record = judge.judged(record_of(wanted, where, found, kept))
    paths = pages.write(record if older is None else against.compared(record, older), wanted.folder)
    print(f"\n{pages.markdown(compact.read(paths[0]))}\nkept: {', '.join(map(str, paths))}")
    return judge.exit_code(record)


def run_of(wanted: Wanted, found: Target) -> Run:
    """What is played on a server."""
    manner = Manner(found.name, wanted.max_tokens, wanted.temperature, wanted.completions)
    return Run(
        wanted.tasks.tasks,
        wanted.candidates,
        manner,
        wanted.concurrency,
        wanted.rounds,
        wanted.seeds,
        wanted.seed,
    )


def record_of(wanted: Wanted, where: Where, found: Target, kept: Kept) -> dict[str, Any]:
    """The record, not yet judged."""
    here = torch.device("cuda" if where.url is None and torch.cuda.is_available() else "cpu")
    return {
        "form": compact.FORM,
        "benchmark": "qualify",
        "command": wanted.command,
        "machine": records.machine(here),
        "versions": records.versions(),
        "plan": {"url": where.url, **wanted.plan(), "rounds": len(run_of(wanted, found).parts())},
        "model": found.model,
        "settings": found.settings,
        "answers": marks.marked(kept.answers, wanted.tasks.tasks),
        "blocks": kept.blocks,
    }


def _server(where: Where, concurrency: int) -> AbstractContextManager[Remote]:
    if where.url is None:
        return target.own_server(where.model, concurrency, where.flags)
    return nullcontext(Remote(where.url.rstrip("/"), key.find(None, where.key_file, os.environ)))
