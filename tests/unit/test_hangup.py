"""What a closed terminal does to each kind of process."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest

from oea_server.engine import hangup, launch, runtime
from oea_server.settings import Settings

SCRIPT = """
import os, signal, sys
from oea_server.engine import hangup
if "nohup" in sys.argv: signal.signal(signal.SIGHUP, signal.SIG_IGN)
if "drain" in sys.argv: signal.signal(signal.SIGTERM, lambda *_: (print("drained"), sys.exit(7)))
getattr(hangup, sys.argv[1])()
os.kill(os.getpid(), signal.SIGHUP)
print("went on")
"""


@pytest.mark.parametrize(
    ("how", "said", "status"),
    [
        (["drain"], "drained\n", 7),
        (["drain", "nohup"], "went on\n", 0),
        (["ignore"], "went on\n", 0),
        (["_handle", "x"], "", -signal.SIGHUP),
    ],
)
def test_a_closed_terminal(how: list[str], said: str, status: int) -> None:
    script = (
        SCRIPT if how[0] != "_handle" else "import os, signal\nos.kill(os.getpid(), signal.SIGHUP)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *how],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.returncode) == (said, status), done.stderr


@pytest.mark.parametrize(
    ("before", "done"),
    [
        (signal.SIG_DFL, ["handle_term"]),
        (signal.SIG_IGN, []),
        (signal.default_int_handler, ["restart"]),
    ],
    ids=["as usual", "nohup", "an app's own"],
)
def test_several_http_workers_end_like_one(
    before: object, done: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[str] = []
    monkeypatch.setattr(hangup, "before", before)
    supervisor = SimpleNamespace(handle_term=lambda: called.append("handle_term"))
    hangup.around_handle_hup(lambda _: called.append("restart"), supervisor)
    assert called == done


@pytest.mark.parametrize(
    ("environment", "warned"),
    [({}, True), ({"OEA_K0": "3"}, False), ({"OEA_POLICY": "oea"}, False)],
)
def test_a_server_that_nobody_asked_to_route_says_so(
    environment: dict[str, str],
    warned: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for name in Settings().environment():
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(
        runtime, "current", SimpleNamespace(steering=SimpleNamespace(settings=Settings()))
    )
    monkeypatch.setattr(launch, "judge", lambda *_: SimpleNamespace(problems=[]))
    for name in ("locks.take", "locks.learn", "proxies.spare", "int4.steer"):
        monkeypatch.setattr(f"oea_server.engine.{name}", lambda *_: None)
    with caplog.at_level(logging.WARNING):
        launch.before_check_server_args(SimpleNamespace())
    assert ("pip uninstall oea-server" in caplog.text) == warned
