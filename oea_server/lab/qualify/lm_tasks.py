"""A generative task of lm-eval as a task file's lines, judged by lm-eval's own filters and metric.

Its data must be at hand: a file of your own, or lm-eval's cache. It requires much, so it may live
in a virtual environment of its own: this file needs nothing but the standard library and lm-eval
(written for 0.4.13).

    python -P lm_tasks.py tasks NAME NUMBER [DIR]   # lines to stdout; DIR: lm-eval's --include_path
    python -P lm_tasks.py score NAME [DIR]          # answer and text on stdin; exits 0 (right) or 1
"""

from __future__ import annotations

import itertools
import json
import os
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import Any

INSTALL = (
    "python3 -m venv .venv-lm-eval && .venv-lm-eval/bin/pip install 'lm-eval[api]', and"
    " --lm-eval-python of it"
)
TOKENS = 256
"""Where a task does not bound its answers, as lm-eval has it."""
STOPS = 4
GENERATIVE = "generate_until"


def loaded(name: str, folder: str | None) -> Any:
    """A task as lm-eval has it.

    Raises:
        ValueError: no such task, its data is not at hand, or nothing is generated for it.
    """
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    manager = import_module("lm_eval.tasks").TaskManager(include_path=folder)
    try:
        task = manager.load([name])["tasks"][name]
    except Exception as error:
        raise ValueError(
            f"--lm-eval={name}: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
        ) from None
    if task.OUTPUT_TYPE != GENERATIVE:
        raise ValueError(
            f"--lm-eval={name}: a task of {task.OUTPUT_TYPE}, whose answers are scored in prefill,"
            f" where all rules are vanilla; only those of {GENERATIVE} say anything"
        )
    return task


def tasks(name: str, number: int, folder: str | None = None) -> Iterator[dict[str, Any]]:
    """The task's first documents, each with what lm-eval asks, and where lm-eval stops."""
    task = loaded(name, folder)
    how = task.config.generation_kwargs or {}
    until = how.get("until") or []
    stop = [until] if isinstance(until, str) else list(until)
    command = [
        sys.executable,
        "-P",
        str(Path(__file__).resolve()),
        "score",
        name,
        *([folder] if folder else []),
    ]
    for doc in itertools.islice(task.eval_docs, number):
        yield {
            "prompt": task.fewshot_context(doc, task.config.num_fewshot or 0),
            "answer": json.dumps(doc, default=str),
            "check": "command",
            "command": command,
            "stop": stop[:STOPS],
            "max_tokens": int(how.get("max_gen_toks", TOKENS)),
            "group": name,
        }


def score(said: dict[str, Any], name: str, folder: str | None = None) -> bool:
    """Whether the first of the task's filters and metrics gives an answer the whole point."""
    task, doc = loaded(name, folder), json.loads(said["answer"])
    asked = task.construct_requests(doc=doc, ctx="", metadata=(name, 0, 1))
    asked.resps = [said["text"]]
    task._instances = [asked]
    task.apply_filters()
    kept = next(iter(asked.filtered_resps.values()))
    return float(next(iter(task.process_results(doc, [kept]).values()))) == 1.0


def main(words: list[str]) -> int:
    """Write tasks, or score an answer, as the module's docstring says."""
    lines = list[str]()
    try:
        with redirect_stdout(sys.stderr):  # which lm-eval and its libraries write to
            if words[0] == "score":
                return 0 if score(json.load(sys.stdin), *words[1:]) else 1
            lines += [json.dumps(task) for task in tasks(words[1], int(words[2]), *words[3:])]
    except ModuleNotFoundError as error:
        if error.name not in ("lm_eval", "lm_eval.tasks"):
            raise
        print(
            f"--lm-eval: lm-eval is not installed in {sys.executable}: {INSTALL}", file=sys.stderr
        )
        return 2
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
