"""The task file: one JSON object a line, and one line of text about whatever is wrong in it."""

from __future__ import annotations

import difflib
import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from oea_server.oneline import oneline

Check = Literal["exact", "regex", "schema", "numeric", "math", "command", "agree"]
MOST_TOKENS = 1_000_000
LONGEST_CHECK = 3600.0
LARGEST = 1e300
SHOWN = 60
"""Characters of a value in a refusal."""
INSTALL = "pip install 'oea-server[qualify]'"


class TaskError(ValueError):
    """One clear line: the file, the line, the field, its value, the bounds."""


class Task(BaseModel):
    """A prompt, and how its answer is judged."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    prompt: str | None = Field(None, min_length=1)
    messages: list[dict[str, Any]] | None = Field(None, min_length=1)
    """Messages of a chat, as the API takes them."""
    system: str | None = None
    """The chat's first message, before the prompt."""
    answer: Any = None
    """A text (exact, math), an expression (regex), a JSON schema (schema), a number (numeric);
    command: anything."""
    check: Check | None = None
    """If not given: exact where there is an answer, else agree."""
    group: str = "all"
    max_tokens: int | None = Field(None, ge=2, le=MOST_TOKENS)
    """The first token comes from prefill, which is vanilla."""
    stop: list[str] = Field([], max_length=4)
    tolerance: float = Field(0.0, ge=0, allow_inf_nan=False)
    """Numeric: how far off a right number may be."""
    command: list[str] = []
    """Command: the program and its arguments."""
    timeout: float = Field(30.0, gt=0, le=LONGEST_CHECK)
    """Command: seconds; what takes longer is wrong."""

    @property
    def judged_by(self) -> Check:
        """`check`, or what it means where it is left out."""
        return self.check or ("agree" if self.answer is None else "exact")

    @model_validator(mode="after")
    def _asks_one_thing(self) -> Task:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("prompt, messages: give one of them")
        if self.messages is not None:
            if self.system is not None:
                raise ValueError("system: goes before a prompt; write it into messages")
            for message in self.messages:
                if not isinstance(message.get("role"), str) or "content" not in message:
                    raise ValueError(f"messages={_shown(message)}: each needs a role and a content")
        return self

    @model_validator(mode="after")
    def _can_be_judged(self) -> Task:
        _ANSWERS[self.judged_by](self)
        for name, of in (("tolerance", "numeric"), ("command", "command"), ("timeout", "command")):
            if name in self.model_fields_set and self.judged_by != of:
                raise ValueError(
                    f"{name}={_shown(getattr(self, name))}: check={self.judged_by} has no use"
                    " for it"
                )
        return self


class TaskFile(NamedTuple):
    """A file's tasks in its order, its name and its digest."""

    name: str
    sha256: str
    tasks: list[Task]


def read(path: Path) -> TaskFile:
    """Every task of a file; blank lines are none.

    Raises:
        TaskError: it cannot be read, holds no task, or one is wrong.
    """
    try:
        content = path.read_bytes()
        text = content.decode()
    except OSError as error:
        raise TaskError(f"--tasks={oneline(str(path))}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise TaskError(
            f"--tasks={oneline(str(path))}: is not UTF-8: {error.reason} at byte {error.start}"
        ) from None
    tasks = [
        _task(path, number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()
    ]
    if not tasks:
        raise TaskError(
            f'--tasks={oneline(str(path))}: holds no task, such as {{"prompt": "1 + 1 =", "answer":'
            ' "2"}'
        )
    return TaskFile(path.name, hashlib.sha256(content).hexdigest(), tasks)


def _task(path: Path, number: int, line: str) -> Task:
    where = f"{oneline(str(path))}:{number}"
    try:
        return Task.model_validate(json.loads(line))
    except json.JSONDecodeError as error:
        raise TaskError(f"{where}: not JSON: {error.msg} at column {error.colno}") from None
    except RecursionError:
        raise TaskError(f"{where}: not JSON that anybody means: it is nested too deeply") from None
    except ValidationError as error:
        raise TaskError(f"{where}: {oneline(_line(error.errors()[0]), 500)}") from None


def _line(problem: Any) -> str:
    name = ".".join(map(str, problem["loc"]))
    if problem["type"] == "extra_forbidden":
        close = difflib.get_close_matches(name, Task.model_fields, n=1)
        return f"{name}: no such field; " + (f"did you mean {close[0]}?" if close else _fields())
    if problem["type"] == "model_type":
        return (
            f'{_shown(problem["input"])}: not an object, such as {{"prompt": "1 + 1 =", "answer":'
            ' "2"}'
        )
    if not name:
        return str(problem["ctx"]["error"])
    return f"{name}={_shown(problem['input'])}: {problem['msg'][0].lower()}{problem['msg'][1:]}"


def _fields() -> str:
    return f"there are {', '.join(Task.model_fields)}"


def _shown(value: Any) -> str:
    return oneline(json.dumps(value, ensure_ascii=False), SHOWN)


def _text(task: Task) -> None:
    if not isinstance(task.answer, str) or not task.answer.strip():
        raise ValueError(
            f"answer={_shown(task.answer)}: check={task.judged_by} needs a text that is not blank"
        )


def _expression(task: Task) -> None:
    _text(task)
    try:
        re.compile(task.answer)
    except re.error as error:
        raise ValueError(
            f"answer={_shown(task.answer)}: is no regular expression: {error}"
        ) from None


def _number(task: Task) -> None:
    given = task.answer
    if (
        isinstance(given, bool)
        or not isinstance(given, int | float)
        or not -LARGEST <= given <= LARGEST
    ):
        raise ValueError(
            f"answer={_shown(given)}: check=numeric needs a number, at most {LARGEST:g} away from 0"
        )


def _schema(task: Task) -> None:
    if not isinstance(task.answer, dict):
        raise ValueError(
            f"answer={_shown(task.answer)}: check=schema needs a JSON schema, an object"
        )
    try:
        from jsonschema import SchemaError
        from jsonschema.validators import validator_for
    except ModuleNotFoundError:
        raise ValueError(f"check=schema: needs jsonschema: {INSTALL}") from None
    try:
        validator_for(task.answer).check_schema(task.answer)
    except SchemaError as error:
        raise ValueError(
            f"answer={_shown(task.answer)}: is no JSON schema: {error.message}"
        ) from None


def _formula(task: Task) -> None:
    _text(task)
    try:
        from math_verify import parse
    except ModuleNotFoundError:
        raise ValueError(f"check=math: needs math-verify: {INSTALL}") from None
    if not parse(f"${task.answer}$"):
        raise ValueError(f"answer={_shown(task.answer)}: math-verify reads no expression in it")


def _program(task: Task) -> None:
    if not task.command or not task.command[0]:
        raise ValueError('command: check=command needs one, ["./right.py"]')
    if shutil.which(task.command[0]) is None:
        raise ValueError(
            f"command={_shown(task.command)}: no such program, or it may not be executed"
        )


def _nothing(task: Task) -> None:
    if task.answer is not None:
        raise ValueError(
            f"answer={_shown(task.answer)}: check=agree compares with vanilla's own answer; leave"
            " it out"
        )


_ANSWERS: dict[str, Callable[[Task], None]] = {
    "exact": _text,
    "regex": _expression,
    "schema": _schema,
    "numeric": _number,
    "math": _formula,
    "command": _program,
    "agree": _nothing,
}
