"""What a search is asked, and what it goes on from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from oea_server.cli import app
from oea_server.lab.quality.grid import OtherRunError
from oea_server.lab.quality.search import asked
from oea_server.lab.quality.search.ledger import Ledger, Measured

NOTHING: dict[str, Any] = {
    **dict.fromkeys(
        (
            "model",
            "text",
            "against",
            "ranks",
            "batch",
            "sequences",
            "length",
            "seed",
            "latency",
            "name",
        )
    ),
    "budget": "1%",
}


def test_the_default_is_the_demo_model_against_t() -> None:
    found = asked.read(NOTHING)
    assert (found.batches, found.sequences, found.length, found.ranks) == (
        [2, 4, 8, 16, 32, 64],
        256,
        128,
        1,
    )
    assert found.command == "oea-server calibrate --budget 1%"


def test_a_record_names_no_folder_of_the_machine(tmp_path: Path) -> None:
    folder = tmp_path / "Qwen3"
    folder.mkdir()
    found = asked.read(
        {
            **NOTHING,
            "model": str(folder),
            "text": Path("/home/me/a.txt"),
            "ranks": "8",
            "against": "busiest",
        }
    )
    assert "/" not in found.command
    assert "--model-path Qwen3 --text a.txt --against busiest --ranks 8" in found.command


WRONG = {
    "--budget=0: nothing but vanilla": ("--budget", "0"),
    "--budget=much: is not a number of nats": ("--budget", "much"),
    "--against=speed: is none of T, busiest, latency": ("--against", "speed"),
    "--against=busiest: needs --ranks": ("--against", "busiest"),
    "--against=T,busiest: is more than one of": ("--against", "T,busiest"),
    "--ranks=8: T is counted over all ranks": ("--ranks", "8"),
    "--ranks=1: 1 is outside 2..1024": ("--ranks", "1"),
    "--against=latency and --latency=FILE": ("--against", "latency"),
    "latency_line=none.json: No such file": ("--against", "latency", "--latency", "none.json"),
    "--batch=1: 1 is outside 2..512": ("--batch", "1"),
    "--sequences=256 --batch=3: batches have to fill pieces of 16": ("--batch", "3"),
    "--sequences=128: fewer than 256, 4 pieces of 64": ("--sequences", "128"),
    "--k: a model's config says it": ("--k", "8"),
    "--batch: eval.json is measured already": ("eval.json", "--batch", "4"),
    "--against: eval.json is measured already": ("eval.json", "--against", "T"),
    "--name=../x: letters, digits": ("--name", "../x"),
    "--model-path=no-such: is not a directory": ("--model-path", "no-such"),
    "no-such.txt: No such file": ("--text", "no-such.txt"),
}


@pytest.mark.parametrize("line", WRONG)
def test_nonsense_is_one_line(line: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["calibrate", *WRONG[line], "--out", str(tmp_path / "out")])
    assert done.exit_code == 2, done.output
    assert done.stderr.startswith(f"oea-server: {line}")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_schedules_file_has_to_be_named() -> None:
    done = CliRunner().invoke(app, ["calibrate", "eval.json"])
    assert (done.exit_code, done.stderr) == (2, "oea-server: --out: name the schedule's file\n")


def line(loss: float) -> Measured:
    return Measured(np.full(3, loss), 30.0, 30.0, 0.9, 24)


def test_what_was_measured_is_not_measured_again(tmp_path: Path) -> None:
    path, about = tmp_path / "lines.jsonl", {"model": 1}
    first = Ledger(path, about).get((16, 0, "k0=3"), lambda: line(2.5))
    path.write_bytes(path.read_bytes() + b'{"batch": 16, "piece": 1, "ru')  # cut within a line
    again = Ledger(path, about)
    same = again.get((16, 0, "k0=3"), lambda: pytest.fail("measured again"))
    assert np.array_equal(first.loss, same.loss)
    assert same._replace(loss=first.loss) == first
    assert again.get((16, 1, "k0=3"), lambda: line(2.7)).loss[0] == 2.7
    assert [
        json.loads(each)["piece"]
        for each in path.read_text().splitlines()[1:]
        if each.endswith("}")
    ] == [0, 1]


def test_another_search_is_not_gone_on_from(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    Ledger(path, {"model": 1})
    with pytest.raises(OtherRunError, match="is of another search"):
        Ledger(path, {"model": 2})
