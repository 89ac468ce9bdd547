"""The command as it is typed, on a stub: what it says by its exit code, refuses, keeps, and leaves
behind."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from oea_server.cli import app
from oea_server.lab.qualify import compact
from tests.unit.qualify.stub import Answering

NUMBER = 40
LINES = [
    {"prompt": f"say {number}", "answer": f"{number}", "check": "exact"} for number in range(NUMBER)
]


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    path = tmp_path / "tasks.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in LINES))
    return path


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stub's counters are never late."""
    monkeypatch.setattr("oea_server.client.remote.Remote.settle", 0.01)


def qualify(*more: str) -> Result:
    return CliRunner().invoke(app, ["qualify", *more])


def asked(stub: Answering, tasks: Path, tmp_path: Path, *more: str) -> Result:
    """The plainest form, with whatever comes on top."""
    plain = ("--url", stub.url, "--tasks", str(tasks), "--margin", "0.1", "--concurrency", "4")
    return qualify(*plain, "--out", str(tmp_path / "out"), *(more or ("--candidate", "k0=1")))


def worse_at(k0: int, share: float) -> Any:
    """Answers that are wrong in about a share of the prompts, under a k0."""

    def says(settings: dict[str, Any], prompt: str) -> str:
        number = int(prompt.rsplit(maxsplit=1)[-1])
        return "wrong" if settings["k0"] == k0 and number < share * NUMBER else str(number)

    return says


@pytest.mark.parametrize(("share", "code"), [(0.0, 0), (0.6, 1), (0.1, 3)])
def test_the_exit_code_says_what_was_shown(
    stub: Answering, tasks: Path, tmp_path: Path, share: float, code: int
) -> None:
    stub.says = worse_at(1, share)
    done = asked(stub, tasks, tmp_path)
    assert done.exit_code == code, done.output
    record = compact.read(tmp_path / "out" / "qualify.json")
    verdict = record["verdicts"]["k0=1"]
    assert verdict["verdict"] == {0: "no worse", 1: "worse", 3: "cannot tell"}[code]
    assert verdict["difference"]["lost"] == round(share * NUMBER)
    assert verdict["cost"]["unique"]["ratio"]["value"] == 0.5
    assert record["plan"]["tasks"]["number"] == NUMBER
    assert record["plan"]["rounds"] == 5
    assert len(record["answers"]) == 2 * NUMBER
    assert stub.settings["k0"] == "auto"


def test_several_candidates_are_as_good_as_the_worst(
    stub: Answering, tasks: Path, tmp_path: Path
) -> None:
    stub.says = worse_at(1, 0.6)
    done = asked(stub, tasks, tmp_path, "--candidate", "k0=3", "--candidate", "k0=1")
    assert done.exit_code == 1, done.output
    record = json.loads((tmp_path / "out" / "qualify.json").read_text())
    assert [each["verdict"] for each in record["verdicts"].values()] == ["no worse", "worse"]


def test_what_can_be_shown_is_said_before_anything_is_asked(
    stub: Answering, tasks: Path, tmp_path: Path
) -> None:
    stub.broken_at = 0
    done = asked(stub, tasks, tmp_path)
    assert done.exit_code == 2
    assert done.stdout.startswith("40 prompts: too few for a margin of 0.1")


def test_an_older_record_is_compared(stub: Answering, tasks: Path, tmp_path: Path) -> None:
    assert asked(stub, tasks, tmp_path).exit_code == 0
    old = tmp_path / "old.json"
    (tmp_path / "out" / "qualify.json").rename(old)
    stub.says = worse_at(1, 0.6)
    done = asked(
        stub,
        tasks,
        tmp_path,
        "--candidate",
        "k0=1",
        "--against",
        str(old),
        "--out",
        str(tmp_path / "new"),
    )
    assert done.exit_code == 1, done.output
    record = json.loads((tmp_path / "new" / "qualify.json").read_text())
    assert [(each["arm"], each["then"], each["now"]) for each in record["against"]["arms"]] == [
        ("vanilla", 1.0, 1.0),
        ("k0=1", 1.0, 0.4),
    ]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ((), '--candidate: give at least one, --candidate "k0=3"'),
        (("--candidate", "k0=0"), "--candidate=k0=0: "),
        (("--candidate", "k0=20"), "--candidate=k0=20: the server refused"),
        (("--candidate", "k0=1", "--margin", "2"), "--margin=2: is outside 0.0001..0.5"),
        (("--candidate", "k0=1", "--margin", "two"), "--margin=two: is not a number"),
        (("--candidate", "k0=1", "--margin", "nan"), "--margin=nan: is outside"),
        (("--candidate", "k0=1", "--concurrency", "1"), "--concurrency=1: 1 is outside 2..4096"),
        (("--candidate", "k0=1", "--max-tokens", "1"), "--max-tokens=1: 1 is outside 2..1000000"),
        (("--candidate", "k0=1", "--seeds", "3"), "--seeds=3: greedy answers are all alike"),
        (
            ("--candidate", "k0=1", "--tasks", "/no/such"),
            "--tasks=/no/such: No such file or directory",
        ),
        (
            ("--candidate", "k0=1", "--model-path", "."),
            "--model-path: is for a server that is started",
        ),
        (("--candidate", "k0=1", "--", "--tp", "2"), "--tp: is for a server that is started"),
        (
            ("--candidate", "k0=1", "--against", "/no/such"),
            "--against=/no/such: No such file or directory",
        ),
        (("--candidate", "k0=1", "--key-file", "/no/such"), "--key-file=/no/such"),
        (("--candidate", "k0=1", "--out", "/proc/1/none"), "--out=/proc/1/none"),
        (
            ("--candidate", "k0=1", "--url", "http://127.0.0.1:1"),
            "--url=http://127.0.0.1:1: no server answers there",
        ),
        (("--candidate", "k0=1", "--url", "nowhere"), "nowhere: not a server's URL"),
    ],
)
def test_what_can_be_put_right_is_one_line(
    stub: Answering, tasks: Path, tmp_path: Path, more: tuple[str, ...], said: str
) -> None:
    done = asked(stub, tasks, tmp_path, *(more or ("--seed", "1")))
    assert done.exit_code == 2, done.output
    (line,) = done.stderr.splitlines()
    assert line.startswith("oea-server: ")
    assert said in line
    assert stub.settings["policy"] == "oea"


def test_what_is_missing_is_said() -> None:
    assert "--tasks: give a file of tasks" in qualify("--margin", "0.1").stderr
    assert "--margin: give what may be lost" in qualify("--tasks", "x").stderr


def test_a_chat_cannot_be_completed(stub: Answering, tasks: Path, tmp_path: Path) -> None:
    with tasks.open("a") as file:
        file.write(json.dumps({"messages": [{"role": "user", "content": "hi"}]}) + "\n")
    done = asked(stub, tasks, tmp_path, "--candidate", "k0=1", "--completions")
    assert "--completions: task 41 is a chat" in done.stderr
    done = asked(stub, tasks, tmp_path, "--candidate", "k0=1", "--temperature", "1")
    assert "--temperature=1: task 41 is judged by vanilla's greedy answer" in done.stderr


@pytest.mark.parametrize(
    ("signum", "interrupt"),
    [
        pytest.param(signal.SIGINT, signal.SIG_DFL, marks=pytest.mark.nightly),
        pytest.param(signal.SIGTERM, signal.SIG_DFL, marks=pytest.mark.nightly),
        (signal.SIGTERM, signal.SIG_IGN),  # as a shell starts what runs in the background
    ],
)
def test_whoever_stops_it_the_knobs_go_back_and_it_goes_on(
    stub: Answering, tasks: Path, tmp_path: Path, signum: signal.Signals, interrupt: signal.Handlers
) -> None:
    stub.slow = 0.1
    command = [
        sys.executable,
        "-m",
        "oea_server",
        "qualify",
        "--url",
        stub.url,
        "--tasks",
        str(tasks),
    ]
    command += [
        "--candidate",
        "k0=1",
        "--margin",
        "0.1",
        "--concurrency",
        "4",
        "--out",
        str(tmp_path / "out"),
    ]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, interrupt),  # noqa: PLW1509  it allocates nothing
    )
    while stub.settings["k0"] != 1 or stub.served < 30:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(signum)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert (
        said.splitlines()[-1]
        == f"oea-server: stopped; the same command with --out {tmp_path / 'out'} goes on from there"
    )
    assert (stub.settings["policy"], stub.settings["k0"]) == ("oea", "auto")
    stub.slow = 0.0
    assert asked(stub, tasks, tmp_path).exit_code == 0
