"""A server of our own in a child process, for the demo and the tests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import requests

from oea_server.client import ports
from oea_server.client.ask import ask
from oea_server.client.remote import Remote

START_TIMEOUT = 600.0
"""Seconds; a cold disk and two busy cores have taken 90."""


SERVE = (sys.executable, "-m", "oea_server", "serve")
SGLANG = (str(Path(sys.executable).with_name("sglang")), "serve")


class Server(Remote):
    """``oea-server serve`` on this machine, from start to stop of a with block. Its log is left
    where the block ends in an error.

    Args:
        flags: after `serve`; a free port is added.
        environment: variables on top of this process's.
        command: what to run instead of `oea-server serve`.
        key: the admin key that `flags` set.
        host: the address to listen on.
    """

    def __init__(
        self,
        *flags: str,
        environment: Mapping[str, str] | None = None,
        command: tuple[str, ...] = (),
        key: str | None = None,
        host: str = "127.0.0.1",
    ) -> None:
        self.port = ports.free(host)
        self._command = [*(command or SERVE), *flags, "--host", host, "--port", str(self.port)]
        self._environment = {**os.environ, **(environment or {})}
        handle, log = tempfile.mkstemp(prefix="oea-server-", suffix=".log")
        os.close(handle)
        self.log = Path(log)
        asked = "::1" if host == "::" else host
        super().__init__(f"http://{f'[{asked}]' if ':' in asked else asked}:{self.port}", key)
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def start(self) -> None:
        """Start the server and wait until it answers.

        Raises:
            RuntimeError: it ended, or took too long; with the end of its log.
        """
        self.process = self.spawn()
        deadline = time.monotonic() + START_TIMEOUT
        try:
            while not self.is_up():
                if self.process.poll() is not None or time.monotonic() > deadline:
                    command = " ".join(self._command)
                    raise RuntimeError(
                        f"{command} did not start; the end of {self.log}:\n{self.tail()}"
                    )
                time.sleep(0.5)
        except BaseException:  # Ctrl-C too: its own session would outlive us
            self.stop()
            raise

    def spawn(self) -> subprocess.Popen[bytes]:
        """Start, and do not wait; in a session of its own, which all its processes are of."""
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                self._command,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment,
                start_new_session=True,
            )
        return self.process

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
        if error is None:  # nobody has to find out what happened
            self.log.unlink(missing_ok=True)

    def stop(self) -> None:
        """SIGTERM, and SIGKILL for whatever of its process group is left after 20 s."""
        if self.process is None:
            return
        for signum, patience in ((signal.SIGTERM, 20.0), (signal.SIGKILL, 10.0)):
            try:
                os.killpg(self.process.pid, signum)
            except ProcessLookupError:
                break
            try:
                self.process.wait(patience)
            except subprocess.TimeoutExpired:
                continue
        self.process.wait()

    def tail(self, lines: int = 30) -> str:
        """The end of the server's log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def is_up(self) -> bool:
        """Whether the server answers, and says that it is healthy."""
        try:
            return ask("GET", f"{self.url}/health", timeout=25).status_code == 200
        except requests.RequestException:
            return False


def without_us(*flags: str) -> Server:
    """SGLang without our router, on our CPU platform where there is no accelerator; not yet
    started."""
    allowed = {"SGLANG_PLUGINS": "oea_cpu"}
    return Server(
        "--served-model-name",
        "demo",
        "--enable-metrics",
        *flags,
        environment=allowed,
        command=SGLANG,
    )
