"""Run a built image with a real Docker engine, as the documents say, and check what they promise.

    python3 deploy/docker/check.py --note "what the bases were" \\
        oea-server:0.2.0-cpu oea-server:0.2.0

`check.sh` builds the images first. The report goes to check.txt beside this file. A test holds it
to the sources: when one of SOURCES changes, check again. Needs nothing but Python and the docker
client. Uses the host's port 30000."""

from __future__ import annotations

import argparse
import hashlib
import http.client
import json
import os
import platform
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
REPORT = HERE / "check.txt"
SOURCES = (
    "Dockerfile",
    ".dockerignore",
    "deploy/docker/entrypoint.sh",
    "deploy/docker/health.py",
    "deploy/docker/install.py",
    "deploy/docker/requirements-cpu.txt",
)
HARDENED = (
    "--read-only",
    "--tmpfs",
    "/tmp:exec",
    "--cap-drop",
    "ALL",
    "--security-opt",
    "no-new-privileges",
)
DOCUMENTED = (*HARDENED, "--shm-size", "1g", "--network", "host")
"""As deploy/README.md has it, but for the network: this runs on engines without a bridge as
well."""
ARBITRARY = "1000660000:0"
"""As OpenShift runs images: a user id of its own, and group 0."""
PORT = 30000
STREAMED = 600
UIDS = """
import glob
lines = (line for path in glob.glob("/proc/[0-9]*/status") for line in open(path))
print(*sorted({line.split()[1] for line in lines if line.startswith("Uid:")}))
"""
KILL_SCHEDULER = """
import glob, os, signal
for path in glob.glob("/proc/[0-9]*/cmdline"):
    if open(path).read().startswith("sglang::scheduler"):
        os.kill(int(path.split("/")[2]), signal.SIGKILL)
        print("killed")
"""
CUDA = """
import glob
libraries = glob.glob("/opt/**/*.so*", recursive=True)
print(*(path for path in libraries if "libcu" in path or "libnv" in path))
"""
STARLETTE = "import importlib.metadata; print(importlib.metadata.version('starlette'))"
"""Before 1.0.1, a Host header makes SGLang take any path for one that needs no key."""


class BrokenPromiseError(Exception):
    """What was promised, and what came instead."""


def digest() -> str:
    """Of everything that decides what the image does, but for the package itself."""
    total = hashlib.sha256()
    for name in SOURCES:
        total.update(name.encode() + b"\0" + (ROOT / name).read_bytes())
    return total.hexdigest()


def docker(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(["docker", *words], capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise BrokenPromiseError(
            f"docker {words[0]} ended {done.returncode}: {done.stderr.strip()[-300:]}"
        )
    return done


def expect(truth: bool, what: str) -> None:
    if not truth:
        raise BrokenPromiseError(what)


def ask(
    method: str, path: str, body: object = None, timeout: float = 60, key: str = ""
) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=timeout)
    headers = {
        "Content-Type": "application/json",
        **({"Authorization": f"Bearer {key}"} if key else {}),
    }
    connection.request(method, path, None if body is None else json.dumps(body), headers)
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def health() -> int:
    """The status of /health, 0 where nobody answers."""
    try:
        return ask("GET", "/health")[0]
    except OSError:
        return 0


class Container:
    """A server that runs as documented."""

    def __init__(self, options: Sequence[str], image: str, volume: str, *arguments: str) -> None:
        expect(health() == 0, f"port {PORT} of this machine is taken")
        run = ("run", "-d", *DOCUMENTED, *options, "-v", f"{volume}:/cache", image, *arguments)
        self.id = docker(*run).stdout.strip()

    def inspect(self, what: str) -> str:
        return docker("inspect", "--format", f"{{{{{what}}}}}", self.id).stdout.strip()

    def run(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return docker("exec", self.id, *words, check=check)

    def log(self) -> str:
        done = docker("logs", self.id)
        return done.stdout + done.stderr

    def wait_until(self, reached: Callable[[], bool], what: str, limit: float) -> float:
        start = time.monotonic()
        while not reached():
            expect(
                time.monotonic() - start < limit,
                f"not within {limit:.0f} s: {what}\n{self.log()[-2000:]}",
            )
            time.sleep(0.5)
        return time.monotonic() - start

    def wait_ready(self) -> float:
        def ready() -> bool:
            expect(self.inspect(".State.Running") == "true", f"it ended: {self.log()[-3000:]}")
            return health() == 200

        return self.wait_until(ready, "/health answers 200", 400)

    def wait_ended(self, limit: float) -> int:
        self.wait_until(
            lambda: self.inspect(".State.Running") == "false", "the container ends", limit
        )
        return int(self.inspect(".State.ExitCode"))


@contextmanager
def serving(
    image: str, volume: str, *arguments: str, options: Sequence[str] = ()
) -> Iterator[Container]:
    container = Container(options, image, volume, *arguments)
    try:
        yield container
    finally:
        docker("rm", "--force", "--volumes", container.id)


def check_commands(image: str, say: Callable[[str], None]) -> None:
    run = ("run", "--rm", *DOCUMENTED, image)
    say(f"--version: {docker(*run, '--version').stdout.strip()}")
    size = int(docker("image", "inspect", "--format", "{{.Size}}", image).stdout)
    say(f"size: {size / 1e9:.2f} GB, unpacked")
    if image.endswith("-cpu"):
        found = docker(*run, "python3", "-c", CUDA).stdout.split()
        expect(not found, f"CUDA libraries: {found}")
        say("no CUDA library in it")
    starlette = docker(*run, "python3", "-c", STARLETTE).stdout.strip()
    expect(
        tuple(map(int, starlette.split("."))) >= (1, 0, 1), f"starlette {starlette}: CVE-2026-48710"
    )
    say(f"starlette {starlette}: a Host header opens nothing")
    say(docker(*run, "id").stdout.strip())
    done = docker("run", "--rm", *DOCUMENTED, "--user", ARBITRARY, image, "doctor", check=False)
    expect(
        done.returncode == 0 and "cannot write" not in done.stdout,
        f"as {ARBITRARY}: {done.stdout}{done.stderr}",
    )
    say(
        f"as user {ARBITRARY}, a user id that nothing knows: doctor finds every folder it needs,"
        " and would serve"
    )
    done = docker(*run, "oea-server", "patch", "check", check=False)
    expect(done.returncode == 0, f"patch check: {done.stdout}{done.stderr}")
    say(f"patch check: {done.stdout.splitlines()[0]}")
    done = docker(*run, "--oea-k0", "banana", check=False)
    lines = (done.stdout + done.stderr).strip().splitlines()
    expect(done.returncode == 2 and len(lines) == 1, f"a bad knob: {done.returncode}, {lines}")
    say(f"--oea-k0 banana ends 2 with one line: {lines[0]}")


def check_serving(container: Container, say: Callable[[str], None]) -> None:
    """The container of an image that was started without arguments."""
    say(f"no arguments: /health is 200 after {container.wait_ready():.0f} s")
    told = [line for line in container.log().splitlines() if line.startswith("oea-server: ")][:2]
    expect("demo model" in told[0] and "--model-path" in told[1], f"its first lines are {told}")
    say("its first two lines say that this is the demo model, and how to serve a real one")
    status, body = ask("POST", "/v1/chat/completions", chat(20))
    expect(status == 200, f"chat completion: {status} {body}")
    say(f"chat completion: 200, {json.loads(body)['usage']['completion_tokens']} tokens")
    status, body = ask("GET", "/metrics")
    built = [line for line in body.splitlines() if line.startswith("oea_build_info")]
    expect(status == 200 and len(built) == 1, f"/metrics: {status}, {built}")
    say(f"metric: {built[0]}")
    uids = container.run("python3", "-c", UIDS).stdout.strip()
    expect(uids == "10001", f"processes run as {uids}")
    say("every process runs as 10001")
    for path in ("/usr/local/bin/x", "/opt/x", "/x"):
        expect(container.run("touch", path, check=False).returncode != 0, f"{path} can be written")
    changed = docker("diff", container.id).stdout.split("\n")
    expect(
        not [
            line for line in changed if line.startswith("A") and line not in ("A /cache", "A /tmp")
        ],
        str(changed),
    )
    say(
        "the root file system cannot be written, and docker diff shows nothing added outside the"
        " mounts"
    )
    waited = container.wait_until(
        lambda: container.inspect(".State.Health.Status") == "healthy", "HEALTHCHECK: healthy", 120
    )
    say(f"HEALTHCHECK: healthy (after another {waited:.0f} s)")


def chat(tokens: int, **more: object) -> dict[str, Any]:
    message = {"role": "user", "content": "hello"}
    return {
        "model": "demo",
        "messages": [message],
        "max_tokens": tokens,
        "ignore_eos": True,
        **more,
    }


class Stream(threading.Thread):
    """A streamed answer, read as it comes."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.chunks: list[str] = []
        self.start()

    def run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=120)
        body = chat(STREAMED, stream=True, stream_options={"include_usage": True})
        connection.request(
            "POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"}
        )
        for line in connection.getresponse():
            if line.startswith(b"data: "):
                self.chunks.append(line[6:].decode().strip())


def check_drain(container: Container, say: Callable[[str], None]) -> None:
    """SIGTERM during a stream. `docker stop` in a process of its own, as it waits."""
    stream = Stream()
    container.wait_until(lambda: len(stream.chunks) > 20, "a stream begins", 60)
    before = len(stream.chunks)
    start = time.monotonic()
    stopping = subprocess.Popen(
        ["docker", "stop", "-t", "300", container.id], stdout=subprocess.DEVNULL
    )
    time.sleep(0.5)
    inside = container.run("python3", "/usr/local/bin/oea-health", check=False)
    during = health()
    running = stream.is_alive()
    stream.join(120)
    stopping.wait(310)
    expect(stream.chunks[-1] == "[DONE]", f"the stream ended with {stream.chunks[-1]}")
    tokens = json.loads(stream.chunks[-2])["usage"]["completion_tokens"]
    expect(tokens == STREAMED, f"{tokens} of {STREAMED} tokens came")
    expect(len(stream.chunks) > before + 20, "the stream was over before SIGTERM came")
    say(f"SIGTERM after {before} chunks of a stream: all {tokens} tokens came, and [DONE]")
    expect(
        running and during == 503, f"/health while it drains: {during}, stream running: {running}"
    )
    expect(inside.returncode == 1, f"oea-health while it drains: {inside}")
    say(
        "while it drained, /health was 503 and the HEALTHCHECK's command failed:"
        f" {inside.stdout.strip()}"
    )
    code = container.wait_ended(10)
    say(f"the container ended by itself after {time.monotonic() - start:.0f} s, exit status {code}")
    expect(code == 0, f"exit status {code} after a drain")


@contextmanager
def key_file() -> Iterator[tuple[str, tuple[str, ...]]]:
    """A key as compose has it, and the options with which a container finds it."""
    with tempfile.TemporaryDirectory() as folder:
        path, key = Path(folder) / "admin-key", secrets.token_hex()
        path.write_text(key)
        path.chmod(0o444)
        yield (
            key,
            (
                "-v",
                f"{path}:/run/secrets/admin-key:ro",
                "-e",
                "OEA_ADMIN_KEY_FILE=/run/secrets/admin-key",
            ),
        )


def check_key(container: Container, key: str, say: Callable[[str], None]) -> None:
    say(
        "again, with arguments and a file with an admin key: /health is 200 after"
        f" {container.wait_ready():.0f} s"
    )
    change = {"policy": "vanilla"}
    statuses = [ask("PUT", "/oea/config", change, key=each)[0] for each in ("", "another", key)]
    expect(
        statuses == [401, 401, 200],
        f"PUT /oea/config without, with another, with the key: {statuses}",
    )
    say("PUT /oea/config: 401 without the key, 401 with another, 200 with it")
    done = container.run("oea-server", "config", "set", "policy=oea", check=False)
    expect(done.returncode == 0, f"config set in the container: {done.stdout}{done.stderr}")
    expect(
        json.loads(ask("GET", "/oea/config")[1])["settings"]["policy"] == "oea",
        "config set in vain",
    )
    say("docker exec NAME oea-server config set policy=...: needs no key said")
    processes = docker("top", container.id, "-eo", "pid,args").stdout
    shown = {
        "docker inspect": docker("inspect", container.id).stdout,
        "the log": container.log(),
        "ps": processes,
    }
    places = [place for place, text in shown.items() if key in text]
    expect(not places, f"the key is in {places}")
    say("the key is neither in docker inspect, nor the log, nor a command line")


def check_crash(container: Container, say: Callable[[str], None]) -> None:
    start = time.monotonic()
    killed = container.run("python3", "-c", KILL_SCHEDULER)
    expect(killed.stdout.split() == ["killed"], f"no scheduler found: {killed}")
    code = container.wait_ended(90)
    expect(code != 0, "exit status 0 after a crash")
    say(
        f"kill -9 of the scheduler: the container ended after {time.monotonic() - start:.0f} s,"
        f" exit status {code}"
    )


def check_image(image: str, say: Callable[[str], None]) -> None:
    check_commands(image, say)
    volume = f"oea-check-{os.getpid()}"
    try:
        with serving(image, volume) as container:
            check_serving(container, say)
            check_drain(container, say)
        arguments = ("--oea-k0=4", "--max-running-requests", "8")
        with (
            key_file() as (key, options),
            serving(image, volume, *arguments, options=options) as container,
        ):
            check_key(container, key, say)
            check_crash(container, say)
    finally:
        docker("volume", "rm", "--force", volume)


def heading(note: str) -> list[str]:
    engine = docker(
        "version", "--format", "Docker engine {{.Server.Version}}, client {{.Client.Version}}"
    ).stdout
    storage = docker("info", "--format", "{{.Driver}} storage").stdout
    git = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False, cwd=ROOT)
    return [
        (
            "What deploy/docker/check.sh printed last. Made by deploy/docker/check.py; not to be"
            " edited."
        ),
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, commit {commit.stdout.strip()}",
        (
            f"{engine.strip()}, {storage.strip()}; {platform.machine()}, {os.cpu_count()} cores,"
            " no GPU"
        ),
        note,
        f"sources {digest()}",
    ]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--note",
        default="The bases are the Dockerfile's.",
        help="what the bases were, for the report",
    )
    parser.add_argument("images", nargs="+")
    arguments = parser.parse_args()
    lines: list[str] = []

    def say(line: str) -> None:
        print(line, flush=True)
        lines.append(line)

    for line in heading(arguments.note):
        say(line)
    failed = False
    for image in arguments.images:
        say(f"\n{image}")
        try:
            check_image(image, lambda line: say(f"  ok  {line}"))
        except BrokenPromiseError as error:
            say(f"  FAILED  {error}")
            failed = True
    say("\nFAILED" if failed else f"\nall passed: {', '.join(arguments.images)}")
    REPORT.write_text("\n".join(lines) + "\n")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
