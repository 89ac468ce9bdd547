"""The image as files: linted, its two targets alike, and what is kept of its last run is of these
files."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import typer.main

from deploy.docker import check, health
from oea_server.cli import app
from tests.deploy.pins import LOCKS, pins

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "deploy/docker"
DOCKERFILE = (ROOT / "Dockerfile").read_text()
ENTRYPOINT = DOCKER / "entrypoint.sh"
STAGES = dict(
    re.findall(
        r"^FROM \S+ AS (\S+)\n(.*?)(?=^FROM |\Z)", DOCKERFILE, flags=re.MULTILINE | re.DOTALL
    ),
)
"""Stage by stage, what follows its FROM."""


def tool(name: str) -> str:
    """A program from the project's environment."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        pytest.skip(f"needs {name} (make setup)")
    return found


def instructions(stage: str, *kinds: str) -> list[str]:
    """A stage's instructions of some kinds, each on one line."""
    joined = re.sub(r"\\\n\s*", "", re.sub(r"^\s*#.*\n", "", STAGES[stage], flags=re.MULTILINE))
    return [line for line in joined.splitlines() if line.split(" ")[0] in kinds]


@pytest.mark.parametrize("name", ["Dockerfile", "deploy/k8s/components/router/Dockerfile"])
def test_hadolint(name: str) -> None:
    done = subprocess.run(
        [tool("hadolint"), ROOT / name], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_shellcheck() -> None:
    scripts = sorted([*DOCKER.glob("*.sh"), *(ROOT / "deploy/compose").glob("*.sh")])
    done = subprocess.run(
        [tool("shellcheck"), *scripts], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_last_target_is_the_one_for_gpus() -> None:
    assert list(STAGES)[-2:] == ["cpu", "gpu"]
    assert "FROM ${BASE_IMAGE} AS gpu" in DOCKERFILE


@pytest.mark.parametrize(
    "kind", ["ENV", "VOLUME", "WORKDIR", "USER", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT", "CMD"]
)
def test_both_targets_are_alike(kind: str) -> None:
    """There is no including in a Dockerfile: what both need stands in both."""
    cpu, gpu = (
        [
            line
            for line in instructions(stage, kind)
            if line not in ("USER 0", "ENV PATH=/opt/venv/bin:$PATH")
        ]
        for stage in ("cpu", "gpu")
    )
    assert cpu == gpu
    assert len(cpu) == 1


@pytest.mark.parametrize("stage", ["cpu", "gpu"])
class TestTarget:
    def test_does_not_run_as_root(self, stage: str) -> None:
        assert instructions(stage, "USER")[-1] == "USER 10001:10001"

    def test_signals_arrive_and_no_server_is_pid_1(self, stage: str) -> None:
        assert instructions(stage, "ENTRYPOINT") == ['ENTRYPOINT ["tini", "--", "oea-entrypoint"]']

    def test_everything_is_written_below_the_volume(self, stage: str) -> None:
        line = instructions(stage, "ENV")[-1]
        values = dict(word.split("=", 1) for word in line.split()[1:])
        assert {
            "HOME",
            "HF_HOME",
            "XDG_CACHE_HOME",
            "TRITON_CACHE_DIR",
            "FLASHINFER_WORKSPACE_BASE",
        } <= values.keys()
        assert {"TORCHINDUCTOR_CACHE_DIR", "NUMBA_CACHE_DIR", "MPLCONFIGDIR"} <= values.keys()
        paths = {value for value in values.values() if value.startswith("/")}
        assert all(Path(path).is_relative_to("/cache") for path in paths)
        # stale files survive a restart: SGLang makes its own
        assert "PROMETHEUS_MULTIPROC_DIR" not in line

    def test_healthcheck_outlasts_sglangs_health(self, stage: str) -> None:
        (line,) = instructions(stage, "HEALTHCHECK")
        seconds = {
            name: int(value) for name, value in re.findall(r"--(interval|timeout)=(\d+)s", line)
        }
        assert seconds["timeout"] > health.TIMEOUT > 20  # SGLANG_HEALTH_CHECK_TIMEOUT
        assert int(re.findall(r"--start-period=(\d+)m", line)[0]) >= 60

    def test_says_what_it_was_made_from(self, stage: str) -> None:
        (line,) = instructions(stage, "LABEL")
        for label in ("title", "description", "version", "revision", "licenses", "base.name"):
            assert f"org.opencontainers.image.{label}=" in line
        version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
        assert f"ARG VERSION={version}" in instructions(stage, "ARG")


def test_every_tag_is_this_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    places = (ROOT / "Dockerfile", DOCKER / "check.sh", ROOT / "deploy/compose/compose.yaml")
    found = re.findall(
        r"(?:oea-server:|^version=)([\d.]+)",
        "\n".join(path.read_text() for path in places),
        re.MULTILINE,
    )
    assert set(found) == {version}
    assert len(found) == 5


def test_bases_are_pinned_and_sglang_is_the_tested_one() -> None:
    locked = pins(LOCKS["constraints.txt"])
    arguments = dict(re.findall(r"^ARG (\w+)=(.+)$", DOCKERFILE, flags=re.MULTILINE))
    digest = "(@sha256:[0-9a-f]{64})?"
    assert re.fullmatch(
        re.escape(f"lmsysorg/sglang:v{locked['sglang']}") + digest, arguments["BASE_IMAGE"]
    )
    assert re.fullmatch(r"python:3\.11-[\w-]+" + digest, arguments["CPU_BASE_IMAGE"])
    for package in ("torch", "torchvision"):
        assert arguments[f"{package.upper()}_VERSION"] == locked[package]
    assert "ARG ZENTORCH_VERSION=\n" in DOCKERFILE


def test_the_builder_from_before_buildkit_can_build_it() -> None:
    assert not re.search(r"^# *syntax=|--mount=|--chmod|--link|<<", DOCKERFILE, flags=re.MULTILINE)
    for script in ("entrypoint.sh", "health.py"):
        assert (DOCKER / script).stat().st_mode & 0o111, f"{script} keeps its mode in the image"


def test_the_context_is_what_is_copied() -> None:
    allowed = {
        line[1:]
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    copied = {
        word
        for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, flags=re.MULTILINE)
        for word in line.split()[:-1]
    }
    assert allowed == copied
    assert (ROOT / ".dockerignore").read_text().splitlines()[1] == "*"


class TestEntrypoint:
    @pytest.fixture
    def bin(self, tmp_path: Path) -> Path:
        """A directory of programs that say how they were called."""
        for name in ("oea-server", "patch", "other"):
            path = tmp_path / name
            path.write_text(f'#!/bin/sh\necho {name} "$@"\n')
            path.chmod(0o755)
        return tmp_path

    def call(self, bin: Path, *arguments: str) -> list[str]:
        path = f"{bin}:/usr/bin:/bin"
        command = [str(ENTRYPOINT), *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, check=True, env={"PATH": path}
        ).stdout.split("\n")

    @pytest.mark.parametrize(
        ("arguments", "called"),
        [
            (
                "--model-path m --oea-k0 4",
                "oea-server serve --model-path m --oea-k0 4 --host 0.0.0.0",
            ),
            ("--port 1 --host ::", "oea-server serve --port 1 --host ::"),
            ("--host=127.0.0.1", "oea-server serve --host=127.0.0.1"),
            ("serve", "oea-server serve --host 0.0.0.0"),
            ("serve Qwen/Qwen3-30B-A3B", "oea-server serve Qwen/Qwen3-30B-A3B --host 0.0.0.0"),
            ("--version", "oea-server --version"),
            ("--help", "oea-server --help"),
            ("doctor --model-path m", "oea-server doctor --model-path m"),
            ("patch check", "oea-server patch check"),  # though there is a program of that name
            ("oea-server config get", "oea-server config get"),
            ("other -x", "other -x"),
        ],
    )
    def test_what_runs(self, bin: Path, arguments: str, called: str) -> None:
        assert self.call(bin, *arguments.split()) == [called, ""]

    def test_words_stay_whole(self, bin: Path) -> None:
        assert self.call(bin, "serve", "--chat-template", "a  b")[0].startswith(
            "oea-server serve --chat-template a  b"
        )

    def test_without_arguments_it_says_so_in_two_lines(self, bin: Path) -> None:
        demo, real, called, _ = self.call(bin)
        assert "demo model" in demo
        assert "--gpus all" in real
        assert "--model-path" in real
        assert called == "oea-server serve --host 0.0.0.0"

    def test_it_knows_every_command(self) -> None:
        (known,) = re.findall(r"^ +(serve \| .+)\) ;;$", ENTRYPOINT.read_text(), flags=re.MULTILINE)
        group = typer.main.get_command(app)
        assert set(known.split(" | ")) == set(getattr(group, "commands", {}))


class TestLastRun:
    @pytest.fixture
    def report(self) -> str:
        return check.REPORT.read_text()

    def test_was_of_these_files(self, report: str) -> None:
        assert f"sources {check.digest()}" in report, (
            "the image changed: run deploy/docker/check.sh again"
        )

    def test_passed(self, report: str) -> None:
        assert "FAILED" not in report
        last = report.strip().splitlines()[-1]
        assert last == "all passed: oea-server:0.2.0-cpu, oea-server:0.2.0"
        for said in (
            "10001",
            "SIGTERM after",
            "kill -9",
            "HEALTHCHECK: healthy",
            "banana",
            "chat completion: 200",
        ):
            assert report.count(said) >= 2

    def test_says_what_the_bases_were(self, report: str) -> None:
        assert re.search(
            r"^(The bases are the Dockerfile's|Stand-ins for the bases: )",
            report,
            flags=re.MULTILINE,
        )
        assert not re.search(r"/work|/root|/tmp/", report.replace("/tmp:exec", ""))


class TestDigests:
    """digests.sh with a docker that knows two digests."""

    FILES = ("Dockerfile", "deploy/compose/compose.yaml", "deploy/k8s/components/router/Dockerfile")
    OLD, NEW = "sha256:" + "a" * 64, "sha256:" + "b" * 64

    @pytest.fixture
    def copy(self, tmp_path: Path) -> Path:
        for name in (*self.FILES, "deploy/docker/digests.sh"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tmp_path / name)
            text = re.sub(r"@sha256:[0-9a-f]+", "", (tmp_path / name).read_text())
            (tmp_path / name).write_text(text)
        return tmp_path

    def run(self, copy: Path, answer: str) -> subprocess.CompletedProcess[str]:
        docker = copy / "bin/docker"
        docker.parent.mkdir(exist_ok=True)
        docker.write_text(
            f'#!/bin/sh\n[ "$1 $2 $3" = "buildx imagetools inspect" ] || exit 9\n{answer}\n'
        )
        docker.chmod(0o755)
        command = [str(copy / "deploy/docker/digests.sh")]
        path = f"{docker.parent}:/usr/bin:/bin"
        return subprocess.run(
            command, capture_output=True, text=True, check=False, env={"PATH": path}
        )

    def images(self, copy: Path) -> list[str]:
        texts = [(copy / name).read_text() for name in self.FILES]
        return re.findall(
            r"^(?:ARG \w+=|FROM | +image: )([\w./-]+:[^/\s]+)$",
            "\n".join(texts),
            flags=re.MULTILINE,
        )

    def test_every_image_of_others_gets_its_digest_and_then_a_newer_one(self, copy: Path) -> None:
        before = self.images(copy)
        for digest in (self.OLD, self.NEW):
            done = self.run(copy, f"echo {digest}")
            assert done.returncode == 0, done.stderr
            expected = [
                f"{name}@{digest}" if not name.startswith("oea-server") else name for name in before
            ]
            assert self.images(copy) == expected
            assert (
                len(done.stdout.splitlines())
                == len({name for name in expected if "@" in name})
                == 5
            )

    @pytest.mark.parametrize("answer", ["echo unauthorized >&2; exit 1", "echo something"])
    def test_without_an_answer_nothing_changes(self, copy: Path, answer: str) -> None:
        before = self.images(copy)
        assert self.run(copy, answer).returncode != 0
        assert self.images(copy) == before


def test_excludes_are_requirements_of_sglang() -> None:
    """A name that SGLang no longer requires is a line that nobody needs."""
    from importlib.metadata import requires

    required = {
        re.split(r"[\[<>=;! ]", line)[0].lower().replace("_", "-")
        for line in requires("sglang") or []
    }
    lines = (DOCKER / "cpu-excludes.txt").read_text().splitlines()
    assert {line for line in lines if line and not line.startswith("#")} <= required


def test_json_of_the_exec_forms() -> None:
    for stage in ("cpu", "gpu"):
        for line in instructions(stage, "ENTRYPOINT", "CMD", "HEALTHCHECK"):
            assert isinstance(json.loads(line[line.index("[") :]), list)
