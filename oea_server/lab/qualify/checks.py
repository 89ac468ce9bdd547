"""Whether an answer is right."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from typing import Any

from oea_server.lab.qualify.tasks import Task, TaskError

NUMBER = re.compile(
    r"(?:(?<![\d.])[-+])?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)?(?:\.\d+|(?<=\d))(?:[eE][-+]?\d+)?"
)
FENCE = re.compile(r"\A```\w*\n(.*)\n```\Z", re.DOTALL)
EXACT = 1e-9
"""How far apart two ways to write one number may lie, of its size."""


def correct(task: Task, text: str) -> bool | None:
    """Whether a text answers a task; None where vanilla's own answer decides (`agree`).

    Raises:
        TaskError: the task's own program cannot tell.
    """
    return _CHECKS[task.judged_by](task, text)


def number(text: str) -> float | None:
    """The last number of a text, 1,234.5 as 1234.5; None if there is none."""
    found = [each for each in NUMBER.findall(text) if each]
    return float(found[-1].replace(",", "")) if found else None


def document(text: str) -> Any:
    """A text as JSON, out of a code fence if it is in one.

    Raises:
        ValueError: it is none.
    """
    fenced = FENCE.match(text.strip())
    return json.loads(fenced[1] if fenced else text)


def _exact(task: Task, text: str) -> bool:
    """White space at both ends does not count; everything between does, and case."""
    return text.strip() == str(task.answer).strip()


def _regex(task: Task, text: str) -> bool:
    return re.search(task.answer, text) is not None


def _numeric(task: Task, text: str) -> bool:
    found, right = number(text), float(task.answer)
    return found is not None and abs(found - right) <= max(task.tolerance, EXACT * abs(right))


def _schema(task: Task, text: str) -> bool:
    from jsonschema.validators import validator_for

    try:
        found = document(text)
    except ValueError:
        return False
    return bool(validator_for(task.answer)(task.answer).is_valid(found))


def _math(task: Task, text: str) -> bool:
    from math_verify import parse, verify

    return bool(verify(parse(f"${task.answer}$"), parse(text)))


def _command(task: Task, text: str) -> bool:
    """0 is right, 1 is wrong, and so is what takes too long: it may well run what the model
    wrote."""
    prompt = task.prompt if task.messages is None else task.messages
    said = json.dumps({"prompt": prompt, "answer": task.answer, "text": text})
    shown = " ".join(task.command)
    try:
        done = subprocess.run(
            task.command,
            input=said,
            text=True,
            capture_output=True,
            timeout=task.timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False
    except OSError as error:
        raise TaskError(f"command={shown}: {error.strerror}") from None
    if done.returncode not in (0, 1):
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise TaskError(
            f"command={shown}: exited with {done.returncode}, which is neither 0 (right) nor 1:"
            f" {last}"
        )
    return done.returncode == 0


def _agree(task: Task, text: str) -> None:
    return None


_CHECKS: dict[str, Callable[[Task, str], bool | None]] = {
    "exact": _exact,
    "regex": _regex,
    "schema": _schema,
    "numeric": _numeric,
    "math": _math,
    "command": _command,
    "agree": _agree,
}
