"""Files of text as people make them, and one line for each that is none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from oea_server.cli import app
from oea_server.lab.quality import text
from oea_server.lab.quality.documents import documents
from tests.unit.quality.test_text import Words


def line(**content: object) -> str:
    return json.dumps(content, ensure_ascii=False)


READ = {
    "separators of other kinds": (
        line(name="a", text="x\u2028y\x85z\u2029\x1c\x0b"),
        [("a", "x\u2028y\x85z\u2029\x1c\x0b")],
    ),
    "no name": (
        line(text="x") + "\n\n" + line(name=None, text="y"),
        [("line 1", "x"), ("line 3", "y")],
    ),
    "no last line feed": (line(name="a", text="x"), [("a", "x")]),
    "blank lines": ("\n \n" + line(name="a", text="x") + "\n\n\t\n", [("a", "x")]),
    "Windows": (
        "\ufeff" + line(name="a", text="x") + "\r\n" + line(name="b", text="y") + "\r\n",
        [("a", "x"), ("b", "y")],
    ),
    "more fields": (line(name="a", text="x", url="u", n=3), [("a", "x")]),
    "escapes": ('{"name": "\\u00e4", "text": "\\ud83d\\ude00\\u2028"}', [("ä", "😀\u2028")]),
    "names twice": (
        line(name="a", text="x") + "\n" + line(name="a", text="y"),
        [("a", "x"), ("a", "y")],
    ),
}
GOOD = line(name="a", text="x").encode() + b"\n"
REFUSED = {
    "Latin-1": (GOOD + GOOD.replace(b"x", b"\xe4"), "line 2: not UTF-8 (byte 0xe4)"),
    "UTF-16": ("\ufeff{}".encode("utf-16-le"), "line 1: not UTF-8 (byte 0xff)"),
    "no JSON": (GOOD + b"\n\nname,text\n", "line 4: not JSON: Expecting value (column 1)"),
    "cut": (GOOD + GOOD[:-4], "line 2: not JSON: Unterminated string"),
    "two in a line": (GOOD.strip() + GOOD, "line 1: not JSON: Extra data"),
    "one document over lines": (
        json.dumps({"name": "a", "text": "x"}, indent=1).encode(),
        "line 1: not JSON: Expecting",
    ),
    "brackets": (GOOD + b"[" * 100_000, "line 2: not JSON that can be read: "),
    "digits": (b'{"text": ' + b"9" * 5000 + b"}", "line 1: not JSON that can be read: "),
    "an array": (GOOD + b"[]", "line 2: an array, not an object with a text"),
    "a string": (b'"x"', "line 1: a string, not an object with a text"),
    "null": (b"null", "line 1: null, not an object with a text"),
    "a number": (b"3.5", "line 1: a number, not an object with a text"),
    "other names": (b'{"title": "a", "body": "x"}', "line 1: no text; it has title, body"),
    "a forged name": (b'{"a\\nb\\u001b[2J": "x"}', "line 1: no text; it has a\\nb\\x1b[2J"),
    "an object without anything": (b"{}", "line 1: no text; it has nothing"),
    "text of null": (b'{"text": null}', "line 1: text is null, not a string"),
    "text of strings": (b'{"text": ["x"]}', "line 1: text is an array, not a string"),
    "name of a number": (b'{"name": 3, "text": "x"}', "line 1: name is a number, not a string"),
    "name of truth": (
        b'{"name": true, "text": "x"}',
        "line 1: name is true or false, not a string",
    ),
    "half a character": (b'{"name": "a", "text": "\\ud83d"}', "line 1: half a character"),
    "nothing": (b"", ": is empty"),
    "a mark and blanks": (b"\xef\xbb\xbf\r\n \n", ": is empty"),
}


@pytest.mark.parametrize("which", READ)
def test_what_is_read(which: str, tmp_path: Path) -> None:
    content, expected = READ[which]
    path = tmp_path / "text.jsonl"
    path.write_bytes(content.encode())
    assert documents(path) == expected


@pytest.mark.parametrize("which", REFUSED)
def test_what_is_refused_is_one_line_with_its_place(which: str, tmp_path: Path) -> None:
    content, expected = REFUSED[which]
    path = tmp_path / "text.jsonl"
    path.write_bytes(content)
    with pytest.raises(ValueError) as refused:  # noqa: PT011
        documents(path)
    said = str(refused.value)
    assert said.startswith(str(path))
    assert expected in said
    assert len(said.splitlines()) == 1
    assert len(said) < len(str(path)) + 300


def test_plain_text_keeps_its_lines_and_loses_its_mark(tmp_path: Path) -> None:
    path = tmp_path / "book.txt"
    path.write_bytes("\ufeffone\r\ntwo\u2028three".encode())
    assert documents(path) == [("book.txt", "one\r\ntwo\u2028three")]
    path.write_bytes(b"one\ntwo \xff")
    with pytest.raises(ValueError, match=r"book.txt, line 2: not UTF-8 \(byte 0xff\)$"):
        documents(path)


def test_a_folder_and_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"^{tmp_path}: Is a directory$"):
        documents(tmp_path)
    with pytest.raises(ValueError, match=r"missing.jsonl: No such file or directory$"):
        documents(tmp_path / "missing.jsonl")


def test_documents_of_one_name_are_all_measured(tmp_path: Path) -> None:
    path = tmp_path / "text.jsonl"
    path.write_text((line(name="a", text="word " * 30) + "\n") * 2)
    assert text.load(path, Words(), 9, 6, "document", 0).documents == ["a"] * 6


@pytest.mark.parametrize("served", [(), ("--served",)])
def test_eval_says_it_before_the_model_is_loaded(tmp_path: Path, served: tuple[str, ...]) -> None:
    path = tmp_path / "text.jsonl"
    path.write_text('{"name": "a", "text": "x"}\n{"name": "b"}\n')
    flags = [
        "--text",
        str(path),
        "--model",
        str(tmp_path / "none"),
        "--out",
        str(tmp_path),
        *served,
    ]
    done = CliRunner().invoke(app, ["eval", *flags, "--policies", "vanilla"])
    assert done.exit_code == 2
    assert done.stderr == f"oea-server: {path}, line 2: no text; it has name\n"


RECORDS = {
    "nothing": b"",
    "no UTF-8": b"\xff\xfe{}",
    "a mark": b"\xef\xbb\xbf{}",
    "an array": b"[]",
    "a number": b"3",
    "null": b"null",
    "brackets": b"[" * 100_000,
    "no rows": b'{"batches": [1], "rows": []}',
    "rows of numbers": b'{"batches": [1], "rows": [1]}',
    "batches of strings": (
        b'{"batches": "ab", "rows": [{"arm": "vanilla", "loss": [1], "batch": "a"}]}'
    ),
    "an interval that is cut": (
        b'{"batches": [4], "rows": [{"arm": "vanilla", "loss": [], "batch": 4}]}'
    ),
}


@pytest.mark.parametrize("which", RECORDS)
def test_calibrate_says_what_is_no_record(which: str, tmp_path: Path) -> None:
    path = tmp_path / "eval.json"
    path.write_bytes(RECORDS[which])
    done = CliRunner().invoke(app, ["calibrate", str(path), "--out", str(tmp_path / "out.json")])
    assert (done.exit_code, done.stderr) == (
        2,
        f"oea-server: {path}: is not a record of 'oea-server eval'\n",
    )


def test_calibrate_names_a_file_that_it_cannot_read(tmp_path: Path) -> None:
    done = CliRunner().invoke(
        app, ["calibrate", str(tmp_path), "--out", str(tmp_path / "out.json")]
    )
    assert (done.exit_code, done.stderr) == (2, f"oea-server: {tmp_path}: Is a directory\n")


@pytest.mark.parametrize("first", ["", "no JSON", "[]", '{"model": 1}', '{"model"', "\udcff"])
def test_a_file_of_another_run_is_not_gone_on_from(tmp_path: Path, first: str) -> None:
    from oea_server.lab.quality import grid

    kept = tmp_path / "eval.jsonl"
    kept.write_bytes(first.encode(errors="surrogateescape") + b"\n")
    with pytest.raises(grid.OtherRunError, match="is of another run"):
        grid.read(kept, {"model": 2})
