"""The cpu-demo overlay's container, run as written: its arguments, its variables, its key, its
probes, its end."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import requests

from oea_server.client.remote import Remote
from tests.deploy.manifests import (
    Object,
    container_args,
    container_env,
    needs_kubectl,
    objects,
    servers,
)
from tests.deploy.names import DEPLOY

OVERLAY = "cpu-demo"
ENTRYPOINT = DEPLOY / "docker/entrypoint.sh"
FOREIGN = (
    "OEA_",
    "SGLANG_",
    "HF_",
    "XDG_",
    "PROMETHEUS_",
    "TRITON_",
    "TORCHINDUCTOR_",
    "FLASHINFER_",
)
"""Variables of this process that a container would not have."""
KEY = "of-the-secret"
ANSWER = 600
"""Tokens of the answer that is under way at the end."""

pytestmark = [
    pytest.mark.server("own"),
    needs_kubectl,
    pytest.mark.skipif(
        not ENTRYPOINT.exists(), reason="needs deploy/docker/entrypoint.sh, the image's"
    ),
]


class Kubelet:
    """What it does to one container, without Kubernetes."""

    def __init__(
        self,
        container: Object,
        environment: dict[str, str],
        process: subprocess.Popen[bytes],
        log: Path,
    ) -> None:
        self.container, self.environment, self.process, self._log = (
            container,
            environment,
            process,
            log,
        )
        (port,) = (port["containerPort"] for port in container["ports"] if port["name"] == "http")
        self.url = f"http://127.0.0.1:{port}"

    def succeeds(self, name: str) -> bool:
        """One try of a probe."""
        probe = self.container[name]
        assert probe["httpGet"]["port"] == "http"
        with suppress(requests.RequestException):
            reply = requests.get(
                self.url + probe["httpGet"]["path"], timeout=probe["timeoutSeconds"]
            )
            return 200 <= reply.status_code < 400
        return False

    def wait(self, name: str) -> float:
        """Seconds until a probe succeeds, tried as often as it says.

        Raises:
            AssertionError: it failed as often as it may, or the process ended.
        """
        start, probe = time.monotonic(), self.container[name]
        for _ in range(probe["failureThreshold"]):
            due = time.monotonic() + probe["periodSeconds"]
            if self.succeeds(name):
                return time.monotonic() - start
            assert self.process.poll() is None, self.tail()
            time.sleep(max(0.0, due - time.monotonic()))
        raise AssertionError(f"{name} failed {probe['failureThreshold']} times:\n{self.tail()}")

    def stop(self, grace: float) -> float:
        """preStop, SIGTERM to the first process, and seconds until it ended.

        Raises:
            subprocess.TimeoutExpired: it would have been killed.
        """
        start = time.monotonic()
        subprocess.run(
            self.container["lifecycle"]["preStop"]["exec"]["command"], check=True, timeout=grace
        )
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(grace - (time.monotonic() - start))
        return time.monotonic() - start

    def tail(self) -> str:
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-40:])


def free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


@pytest.fixture(scope="module")
def kubelet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubelet]:
    container = servers(objects(OVERLAY))[0].container
    port = container["ports"][0]["containerPort"]
    if not free(port):
        pytest.skip(f"port {port}, which the manifest names, is taken on this machine")
    cache = tmp_path_factory.mktemp("cache")
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)
    }
    # the image's: everything that is written lies under /cache
    environment |= {
        "HOME": str(cache),
        "XDG_CACHE_HOME": str(cache / "xdg"),
        "HF_HOME": str(cache / "huggingface"),
    }
    environment |= {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    environment |= container_env(OVERLAY)
    environment["OEA_ADMIN_KEY_FILE"] = str(
        mounted_key(container, environment["OEA_ADMIN_KEY_FILE"], cache)
    )
    log = cache / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            # literally, and one word more: nobody outside this machine need reach a test
            ["sh", str(ENTRYPOINT), *container_args(OVERLAY), "--host=127.0.0.1"],
            env=environment,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd=cache,
        )
    try:
        yield Kubelet(container, environment, process, log)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        shutil.rmtree(cache, ignore_errors=True)


def mounted_key(container: Object, path: str, folder: Path) -> Path:
    """What the Secret's volume shows at a path, in a folder that is ours."""
    assert [
        each for each in container["volumeMounts"] if Path(path).parent == Path(each["mountPath"])
    ]
    key = folder / Path(path).name
    key.write_text(KEY + "\n")
    return key


def test_it_starts_within_its_probe(kubelet: Kubelet) -> None:
    kubelet.wait("startupProbe")
    kubelet.wait("readinessProbe")
    assert kubelet.succeeds("livenessProbe")


def test_it_answers_and_routes(kubelet: Kubelet) -> None:
    server = Remote(kubelet.url, KEY)
    streams = [stream(server, 16) for _ in range(4)]  # a batch, or OEA has nothing to share
    for each in streams:
        each.join()
    metrics = server.settled_metrics()
    assert metrics["oea_router_active"] == 1
    assert metrics["oea_unique_experts_count"] > 0
    assert server.config()["settings"]["policy"] == "oea"
    (limit,) = (
        word for word in container_args(OVERLAY) if word.startswith("--max-running-requests=")
    )
    bearer = {"Authorization": f"Bearer {KEY}"}
    info = requests.get(f"{kubelet.url}/server_info", headers=bearer, timeout=30).json()
    assert info["max_running_requests"] == int(limit.partition("=")[2])


def test_it_is_turned_off_from_inside_alone_without_a_key_on_the_command_line(
    kubelet: Kubelet,
) -> None:
    """As `kubectl exec` would: the pod's own variables."""
    asked = requests.put(f"{kubelet.url}/oea/config", json={"policy": "vanilla"}, timeout=30)
    assert asked.status_code == 401
    assert KEY not in kubelet.tail()
    arguments = Path(f"/proc/{kubelet.process.pid}/cmdline").read_text()
    assert KEY not in arguments
    for policy in ("vanilla", "oea"):
        words = ["oea-server", "config", "set", f"policy={policy}"]
        done = subprocess.run(
            words, capture_output=True, text=True, check=False, env=kubelet.environment
        )
        assert done.returncode == 0, done.stderr
        assert Remote(kubelet.url, KEY).config()["settings"]["policy"] == policy


class Stream(threading.Thread):
    """One streamed chat."""

    def __init__(self, server: Remote, tokens: int) -> None:
        super().__init__(daemon=True)
        self._server, self._tokens = server, tokens
        self.begun = threading.Event()
        self.chunks = 0
        self.finish: str | None = None
        self.error: Exception | None = None

    def run(self) -> None:
        more: dict[str, Any] = {"ignore_eos": True}
        try:
            for chunk in self._server.client.chat.completions.create(
                model="demo",
                messages=[{"role": "user", "content": "go on"}],
                max_tokens=self._tokens,
                stream=True,
                extra_body=more,
            ):
                self.chunks += 1
                self.begun.set()
                if chunk.choices and chunk.choices[0].finish_reason:
                    self.finish = chunk.choices[0].finish_reason
        except Exception as error:
            self.error = error


def stream(server: Remote, tokens: int) -> Stream:
    thread = Stream(server, tokens)
    thread.start()
    return thread


def test_it_drains_within_its_grace_period(kubelet: Kubelet) -> None:
    grace = float(servers(objects(OVERLAY))[0].spec["terminationGracePeriodSeconds"])
    server = Remote(kubelet.url)
    unready = threading.Event()

    def keep_asking() -> Iterator[Stream]:
        """Answers under way, one after another until the server says that it goes."""
        while not unready.is_set():
            yield stream(server, ANSWER)

    running: list[Stream] = []

    def users() -> None:
        for each in keep_asking():
            running.append(each)
            each.join()

    def readiness() -> None:
        while kubelet.succeeds("readinessProbe"):
            time.sleep(0.5)
        unready.set()

    watchers = [
        threading.Thread(target=users, daemon=True),
        threading.Thread(target=readiness, daemon=True),
    ]
    for each in watchers:
        each.start()
    while not running or not running[0].begun.wait(1):
        assert kubelet.process.poll() is None, kubelet.tail()
    seconds = kubelet.stop(grace)
    assert seconds < grace
    assert unready.is_set()
    watchers[0].join(30)
    assert running
    for each in running:
        assert (each.finish, each.error) == ("length", None), kubelet.tail()
    assert kubelet.process.returncode == 0, kubelet.tail()
