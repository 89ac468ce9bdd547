"""Right and wrong answers, check by check; and what an answer is beside vanilla's."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from oea_server.lab.qualify import checks, marks
from oea_server.lab.qualify.tasks import Task, TaskError


@pytest.mark.parametrize(
    ("task", "right", "wrong"),
    [
        ({"answer": "a  b"}, ["a  b", " a  b\n", "\ta  b"], ["a b", "A  b", "a  b.", "", "xa  b"]),
        (
            {"answer": r"^\s*(yes|no)\b", "check": "regex"},
            ["yes", " no, never"],
            ["maybe", "", "nobody"],
        ),
        (
            {"answer": 1234.5, "check": "numeric"},
            ["1234.5", "so it is 1,234.5.", "2 then 1234.50", "1.2345e3", "= +1234.5"],
            ["1234", "-1234.5", "", "none", "1234.5 of 2"],
        ),
        ({"answer": -3, "check": "numeric"}, ["-3", "x = -3."], ["3", "5-3"]),
        ({"answer": 0.1, "check": "numeric", "tolerance": 0.05}, ["0.12", ".06"], ["0.2", "0.04"]),
        ({"answer": 0.3, "check": "numeric"}, ["0.30000000000000004"], ["0.3001"]),
        (
            {"answer": {"type": "object", "required": ["a"]}, "check": "schema"},
            ['{"a": 1}', ' {"a": 1}\n', '```json\n{"a": 1}\n```'],
            ["{}", "", "a", '{"a": 1', 'here: {"a": 1}', "[1]"],
        ),
    ],
    ids=lambda value: value["check"] if isinstance(value, dict) and "check" in value else None,
)
def test_right_and_wrong(task: dict[str, Any], right: list[str], wrong: list[str]) -> None:
    asked = Task(prompt="p", **task)
    assert {text: checks.correct(asked, text) for text in right} == dict.fromkeys(right, True)
    assert {text: checks.correct(asked, text) for text in wrong} == dict.fromkeys(wrong, False)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("1,234,567", 1234567),
        ("1, 2 or 3", 3),
        ("10-12", 12),
        ("3.", 3),
        ("v1.2.3", 0.3),
        ("nothing", None),
        (".", None),
    ],
)
def test_the_last_number(text: str, found: float | None) -> None:
    assert checks.number(text) == found


def program(tmp_path: Path, *lines: str) -> Task:
    path = tmp_path / "check.py"
    path.write_text("\n".join(["import json, sys, time", "given = json.load(sys.stdin)", *lines]))
    return Task(
        prompt="p", answer="a", check="command", command=[sys.executable, str(path)], timeout=10.0
    )


def test_a_program_says_by_its_exit_code(tmp_path: Path) -> None:
    task = program(
        tmp_path, "assert given['prompt'] == 'p'", "sys.exit(given['text'] != given['answer'])"
    )
    assert checks.correct(task, "a") is True
    assert checks.correct(task, "b") is False


def test_a_program_that_cannot_tell_is_an_error_and_a_slow_one_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"exited with 3, .* 1: because"):
        checks.correct(program(tmp_path, "print('because', file=sys.stderr)", "sys.exit(3)"), "a")
    slow = program(tmp_path, "time.sleep(60)").model_copy(update={"timeout": 0.2})
    assert checks.correct(slow, "a") is False


def test_agreement_is_not_decided_by_the_answer_alone() -> None:
    assert checks.correct(Task(prompt="p"), "a") is None


def test_math() -> None:
    task = Task(prompt="p", answer=r"\frac{1}{2}", check="math")
    assert checks.correct(task, "It is $0.5$.") is True
    assert checks.correct(task, r"It is $\frac{2}{3}$.") is False


def test_agreement_and_breaks_are_marked_beside_vanilla() -> None:
    tasks = [Task(prompt="p"), Task(prompt="q", answer="Anna liest", check="exact")]

    def answer(arm: str, task: int, text: str, correct: bool | None) -> dict[str, Any]:
        return {"arm": arm, "task": task, "seed": 0, "text": text, "correct": correct}

    found = marks.marked(
        [
            answer("vanilla", 0, "a long answer", None),
            answer("k0=1", 0, "a long answer ", None),
            answer("vanilla", 1, "Anna liest", True),
            answer("k0=1", 1, "Анна читает", False),
            answer("k0=2", 0, "another answer", None),
        ],
        tasks,
    )
    assert [each["correct"] for each in found] == [True, True, True, False, False]
    assert [each["broken"] for each in found] == [False, False, False, True, False]


@pytest.mark.parametrize(
    ("check", "text", "beside", "is_broken"),
    [
        ({"answer": 3, "check": "numeric"}, "four", "3", True),
        ({"answer": 3, "check": "numeric"}, "4", "3", False),
        ({"answer": {}, "check": "schema"}, "text", "{}", True),
        ({"answer": {}, "check": "schema"}, "[]", "{}", False),
        ({"answer": "a"}, "", "a", False),  # empty is counted as empty
        ({"answer": "a"}, "lost \ufffd in the middle", "a", True),
        ({"answer": "a"}, "cut in half \ufffd", "a", False),
        ({"answer": "a"}, "да", "a whole long answer", False),  # too short to tell
        ({"answer": "a"}, "中文中文中文中文", "a whole long answer", True),
    ],
)
def test_broken(check: dict[str, Any], text: str, beside: str, is_broken: bool) -> None:
    assert marks.broken(Task(prompt="p", **check), text, beside) is is_broken
