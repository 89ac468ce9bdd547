"""What `doctor --on` says of many commands: one process a card, one after the other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from oea_server.lab.recipes.commands import Command

Said = dict[str, Any]
"""The fields of `absent.judgement.Answer`, `works`, `said` and `took`."""


def ask(commands: Sequence[Command]) -> dict[Command, Said]:
    """The answer to each command."""
    found: dict[Command, Said] = {}
    for card in sorted({each.hardware for each in commands}):
        here = [each for each in dict.fromkeys(commands) if each.hardware == card]
        found |= dict(zip(here, on(card, [each.question for each in here]), strict=True))
    return found


def on(card: str, questions: Sequence[Sequence[str]]) -> list[Said]:
    """The answers to command lines on one card. No knob of this environment's matters.

    Raises:
        RuntimeError: the process ended before it had answered all of them.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OEA_")}
    done = subprocess.run(
        [sys.executable, "-m", "oea_server.absent.many", card],
        input=json.dumps(questions),
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    answers = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if len(answers) != len(questions):
        raise RuntimeError(
            f"{len(answers)} of {len(questions)} answers on {card}: {done.stderr[-2000:]}"
        )
    return answers
