"""The task file: what is read, and the one line about each thing that is wrong."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from oea_server.lab.qualify import tasks
from oea_server.lab.qualify.tasks import Task, TaskError


def written(tmp_path: Path, *lines: Any) -> Path:
    path = tmp_path / "tasks.jsonl"
    path.write_text(
        "".join((each if isinstance(each, str) else json.dumps(each)) + "\n" for each in lines)
    )
    return path


def test_tasks_are_read_in_order(tmp_path: Path) -> None:
    chat = {"messages": [{"role": "user", "content": "hi"}]}
    path = written(
        tmp_path, {"prompt": "a", "answer": "b", "check": "exact"}, "", {**chat, "group": "chats"}
    )
    found = tasks.read(path)
    assert [(each.prompt, each.judged_by, each.group) for each in found.tasks] == [
        ("a", "exact", "all"),
        (None, "agree", "chats"),
    ]
    assert (found.name, len(found.sha256)) == ("tasks.jsonl", 64)


def test_a_separator_within_a_line_is_no_new_line(tmp_path: Path) -> None:
    path = tmp_path / "tasks.jsonl"
    path.write_text('{"prompt": "a\u2028b", "answer": "c"}\n', encoding="utf-8")
    assert tasks.read(path).tasks[0].prompt == "a\u2028b"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("nonsense", "tasks.jsonl:2: not JSON: Expecting value at column 1"),
        ("[1]", "tasks.jsonl:2: [1]: not an object"),
        ({"answer": "a"}, "tasks.jsonl:2: prompt, messages: give one of them"),
        ({"prompt": ""}, 'tasks.jsonl:2: prompt="": string should have at least 1 character'),
        ({"prompt": 3}, "tasks.jsonl:2: prompt=3: input should be a valid string"),
        (
            {"prompt": "a", "messages": [{"role": "user", "content": "a"}]},
            "prompt, messages: give one of them",
        ),
        (
            {"messages": [{"role": "user"}]},
            'messages={"role": "user"}: each needs a role and a content',
        ),
        (
            {"messages": [{"role": "user", "content": "a"}], "system": "s"},
            "system: goes before a prompt",
        ),
        ({"prompt": "a", "anwser": "b"}, "anwser: no such field; did you mean answer?"),
        (
            {"prompt": "a", "check": "exactly"},
            "check=\"exactly\": input should be 'exact', 'regex'",
        ),
        (
            {"prompt": "a", "check": "exact"},
            "answer=null: check=exact needs a text that is not blank",
        ),
        ({"prompt": "a", "answer": 3}, "answer=3: check=exact needs a text that is not blank"),
        ({"prompt": "a", "answer": " "}, 'answer=" ": check=exact needs a text that is not blank'),
        ({"prompt": "a", "answer": "(", "check": "regex"}, 'answer="(": is no regular expression'),
        (
            {"prompt": "a", "answer": "3", "check": "numeric"},
            'answer="3": check=numeric needs a number',
        ),
        (
            {"prompt": "a", "answer": True, "check": "numeric"},
            "answer=true: check=numeric needs a number",
        ),
        (
            '{"prompt": "a", "answer": NaN, "check": "numeric"}',
            "answer=NaN: check=numeric needs a number",
        ),
        (
            '{"prompt": "a", "answer": 1' + 400 * "0" + ', "check": "numeric"}',
            "check=numeric needs a number",
        ),
        (
            {"prompt": "a", "answer": 3, "check": "numeric", "tolerance": -1},
            "tolerance=-1: input should be greater",
        ),
        (
            {"prompt": "a", "answer": "b", "tolerance": 1},
            "tolerance=1.0: check=exact has no use for it",
        ),
        (
            {"prompt": "a", "answer": "b", "check": "schema"},
            'answer="b": check=schema needs a JSON schema',
        ),
        ({"prompt": "a", "answer": {"type": "nothing"}, "check": "schema"}, "is no JSON schema"),
        ({"prompt": "a", "check": "command"}, "command: check=command needs one"),
        (
            {"prompt": "a", "check": "command", "command": ["/no/such"]},
            "no such program, or it may not be executed",
        ),
        (
            {"prompt": "a", "check": "command", "command": ["true"], "timeout": 0},
            "timeout=0: input should be greater",
        ),
        (
            {"prompt": "a", "check": "agree", "answer": "b"},
            "check=agree compares with vanilla's own answer",
        ),
        (
            {"prompt": "a", "answer": "b", "max_tokens": 1},
            "max_tokens=1: input should be greater than or equal to 2",
        ),
        (
            {"prompt": "a", "answer": "b", "max_tokens": 4.5},
            "max_tokens=4.5: input should be a valid integer",
        ),
        ('{"prompt": "a", "answer": ' + 5000 * "[" + 5000 * "]" + "}", "nested too deeply"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(tmp_path: Path, line: Any, said: str) -> None:
    path = written(tmp_path, {"prompt": "a", "answer": "b"}, line)
    with pytest.raises(TaskError) as caught:
        tasks.read(path)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert f"{path}:2: " in str(caught.value)


def test_no_file_and_no_task(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="No such file or directory"):
        tasks.read(tmp_path / "none.jsonl")
    with pytest.raises(TaskError, match="holds no task"):
        tasks.read(written(tmp_path, "", "  "))
    (tmp_path / "bytes.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(TaskError, match="is not UTF-8"):
        tasks.read(tmp_path / "bytes.jsonl")


def test_math_needs_math_verify(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "math_verify", None)
    with pytest.raises(
        TaskError, match=r"check=math: needs math-verify: pip install 'oea-server\[qualify\]'"
    ):
        tasks.read(written(tmp_path, {"prompt": "a", "answer": "1/2", "check": "math"}))


def test_a_task_can_be_a_text_and_no_more() -> None:
    assert Task(prompt="a").judged_by == "agree"
    assert Task(prompt="a", answer="b").judged_by == "exact"
