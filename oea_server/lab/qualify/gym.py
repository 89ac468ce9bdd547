"""reasoning-gym's procedural tasks as a task file's lines, and its scorers as a task's command.

It pins another version of tabulate than ours is tested with, so it may live in a virtual
environment of its own: this file needs nothing but the standard library and reasoning-gym, and can
be run by that environment's Python.

    python -P gym.py tasks NAME NUMBER SEED     # lines to stdout
    python -P gym.py score                      # answer and text on stdin; exits 0 (right) or 1
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

INSTALL = (
    "python3 -m venv .venv-gym && .venv-gym/bin/pip install reasoning-gym, and --gym-python"
    " .venv-gym/bin/python"
)
TOKENS = 32
ITSELF = [sys.executable, "-P", str(Path(__file__).resolve())]


def tasks(name: str, number: int, seed: int) -> Iterator[dict[str, Any]]:
    """The dataset's entries as tasks. Where a dataset has a scorer of its own, that judges; else
    the answer is compared as it stands.

    Raises:
        ValueError: no such dataset; with those that there are.
    """
    library, factory = import_module("reasoning_gym"), import_module("reasoning_gym.factory")
    if name not in factory.DATASETS:
        raise ValueError(
            f"--reasoning-gym={name}: no such dataset; there are"
            f" {', '.join(sorted(factory.DATASETS))}"
        )
    dataset = library.create_dataset(name, size=number, seed=seed)
    own = type(dataset).score_answer is not factory.ProceduralDataset.score_answer
    for entry in dataset:
        task = {"prompt": f"{entry['question']}\n", "max_tokens": TOKENS, "group": f"gym-{name}"}
        if own:
            answer = json.dumps({"dataset": name, "entry": entry}, default=str)
            yield task | {"answer": answer, "check": "command", "command": [*ITSELF, "score"]}
        else:
            yield task | {"answer": str(entry["answer"]), "check": "exact"}


def score(said: dict[str, Any]) -> bool:
    """Whether reasoning-gym gives an answer the whole point."""
    asked_for = json.loads(said["answer"])
    scorer = import_module("reasoning_gym").get_score_answer_fn(asked_for["dataset"])
    return float(scorer(answer=said["text"].strip(), entry=asked_for["entry"])) == 1.0


def main(words: list[str]) -> int:
    """Write tasks, or score an answer, as the module's docstring says."""
    try:
        if words[0] == "score":
            return 0 if score(json.load(sys.stdin)) else 1
        for task in tasks(words[1], int(words[2]), int(words[3])):
            print(json.dumps(task))
    except ModuleNotFoundError as error:
        if error.name != "reasoning_gym":
            raise
        print(
            f"--reasoning-gym: reasoning-gym is not installed in {sys.executable}: {INSTALL}",
            file=sys.stderr,
        )
        return 2
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
