"""Every command under an encoding that lacks our marks, with output that is closed, full, or no
longer read."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

OURS = Path(__file__).parents[2]
DOCTOR = ("doctor", "--enable-torch-compile", "--model-path", "\udcff\u2717")
COMMANDS = [
    ("--help",),
    ("serve", "--help"),
    ("serve", "--enable-torch-compile", "--model-path", "\udcff\u2717"),
    DOCTOR,
    ("config", "get", "--url", "http://127.0.0.1:1"),
    ("patch", "check"),
    ("calibrate", "\udcff\u2717", "--out", "x"),
    ("bench", "router", "--batch", "0"),
]


def run(*words: str, to: str = "", **variables: str) -> subprocess.CompletedProcess[bytes]:
    """A command of ours in a shell, with its output led somewhere."""
    environment = {**os.environ, "PYTHONPATH": str(OURS), "COLUMNS": "80", **variables}
    script = f'"$0" -m oea_server "$@" {to}'
    shell = ["bash", "-c", script, sys.executable, *words]
    return subprocess.run(shell, env=environment, capture_output=True)  # noqa: PLW1510


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words[0])
def test_any_encoding(words: tuple[str, ...]) -> None:
    plain, done = (
        run(*words, PYTHONIOENCODING=encoding) for encoding in ("utf-8:backslashreplace", "ascii")
    )
    assert b"Traceback" not in done.stderr + done.stdout
    assert done.returncode == plain.returncode
    assert bool(done.stdout) == bool(plain.stdout)
    done.stdout.decode("ascii")


def test_what_a_terminal_lacks_is_escaped() -> None:
    assert "✗ --enable" in run(*DOCTOR, PYTHONIOENCODING="utf-8").stdout.decode()
    assert b"\\u2717 --enable" in run(*DOCTOR, PYTHONIOENCODING="ascii").stdout
    unaided = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    assert b"\\u2717 --enable" in run(*DOCTOR, **unaided).stdout


@pytest.mark.parametrize(
    "words",
    [("--help",), ("serve", "--help"), DOCTOR, ("patch", "check")],
    ids=lambda words: words[0],
)
@pytest.mark.parametrize("to", [">&-", "| true", ">&- 2>&-"])
def test_output_that_nobody_reads_is_no_fault(words: tuple[str, ...], to: str) -> None:
    for unbuffered in ("", "1"):
        done = run(*words, to=to, PYTHONUNBUFFERED=unbuffered)
        assert done.stderr == b""


@pytest.mark.parametrize(
    "words", [("--help",), DOCTOR, ("patch", "check")], ids=lambda words: words[0]
)
def test_a_full_disk_is_one_line(words: tuple[str, ...]) -> None:
    for unbuffered in ("", "1"):
        done = run(*words, to="> /dev/full", PYTHONUNBUFFERED=unbuffered)
        assert done.stderr == b"oea-server: cannot write: No space left on device\n"


def test_processes_that_are_started_escape_too() -> None:
    script = (
        "import os, sys; from oea_server.terminal import forgiving\nwith forgiving():"
        " os.system(sys.argv[1])"
    )
    child = f"{sys.executable} -c 'print(chr(0x2717))'"
    environment = {**os.environ, "PYTHONPATH": str(OURS), "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        [sys.executable, "-c", script, child], env=environment, capture_output=True, check=True
    )
    assert done.stdout == b"\\u2717\n"
