"""deploy/compose: what it mounts exists, what it pulls is pinned, one server runs, and its keys are
files."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.names import DEPLOY, PROMETHEUS

COMPOSE = DEPLOY / "compose"
FILE = COMPOSE / "compose.yaml"
API_KEY = COMPOSE / "api-key.yaml"
WHOLE: dict[str, Any] = yaml.safe_load(FILE.read_text())
SERVICES: dict[str, dict[str, Any]] = WHOLE["services"]
SETTINGS = dict(
    line.split("=", 1)
    for line in (COMPOSE / ".env").read_text().splitlines()
    if "=" in line and not line.startswith("#")
)
BOTH = ("server", "server-gpu")


def mounts(service: dict[str, Any]) -> list[list[str]]:
    return [volume.split(":") for volume in service["volumes"]]


@pytest.mark.parametrize("name", SERVICES)
class TestService:
    def test_what_it_mounts_exists(self, name: str) -> None:
        volumes = WHOLE["volumes"]
        for source, *_ in mounts(SERVICES[name]):
            assert (
                (COMPOSE / source).resolve().exists()
                if source.startswith(".")
                else source in volumes
            )

    def test_its_image_is_pinned(self, name: str) -> None:
        assert re.search(
            r":v?\d+\.\d+\.\d+(-cpu)?(@sha256:[0-9a-f]{64})?$", SERVICES[name]["image"]
        )

    def test_it_is_published_to_this_machine_alone(self, name: str) -> None:
        (port,) = SERVICES[name]["ports"]
        assert port.startswith("${BIND:-127.0.0.1}:")
        assert SETTINGS["BIND"] == "127.0.0.1"

    def test_it_has_no_privileges(self, name: str) -> None:
        assert SERVICES[name]["cap_drop"] == ["ALL"]
        assert SERVICES[name]["security_opt"] == ["no-new-privileges:true"]

    def test_its_variables_are_in_env(self, name: str) -> None:
        used = re.findall(r"\$\{(\w+)", yaml.safe_dump(SERVICES[name]))
        assert set(used) - {"GIT_COMMIT"} <= SETTINGS.keys()

    def test_its_secrets_are_files_that_the_repository_has_not(self, name: str) -> None:
        """Variables and arguments show in `docker inspect`."""
        files = [
            value for key, value in environment(SERVICES[name]).items() if key.endswith("_FILE")
        ]
        assert files == [f"/run/secrets/{secret}" for secret in SERVICES[name].get("secrets", [])]
        for secret in SERVICES[name].get("secrets", []):
            assert WHOLE["secrets"][secret] == {"file": f"./secrets/{secret}"}
        for key, value in environment(SERVICES[name]).items():
            assert key.endswith("_FILE") or not re.search("PASSWORD|KEY", key), f"{key}={value}"
        assert "key" not in str(SERVICES[name].get("command", ""))


def environment(service: dict[str, Any]) -> dict[str, str]:
    return dict(service.get("environment", {}))


def test_one_server_of_two_runs() -> None:
    assert [SERVICES[name]["profiles"] for name in BOTH] == [["cpu"], ["gpu"]]
    assert SETTINGS["COMPOSE_PROFILES"] == "cpu"


@pytest.mark.parametrize("name", BOTH)
def test_a_server_drains_and_writes_only_to_its_mounts(name: str) -> None:
    server = SERVICES[name]
    assert server["stop_grace_period"] == "15m"
    assert server["read_only"] is True
    assert mounts(server) == [["cache", "/cache"]]
    assert server["tmpfs"] == ["/tmp:exec"]
    assert (COMPOSE / server["build"]["context"] / "Dockerfile").exists()


def test_prometheus_asks_whichever_runs_and_relabels_as_the_other_configuration_does() -> None:
    here = yaml.safe_load((COMPOSE / "prometheus.yml").read_text())
    alone = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    (target,) = here["scrape_configs"][0]["static_configs"][0]["targets"]
    for name in BOTH:
        assert SERVICES[name]["networks"]["server"]["aliases"] == [target.removesuffix(":30000")]
    alone["scrape_configs"][0]["static_configs"][0]["targets"] = [target]
    assert here == alone


@pytest.mark.parametrize("name", BOTH)
def test_a_server_has_an_admin_key(name: str) -> None:
    assert environment(SERVICES[name])["OEA_ADMIN_KEY_FILE"] == "/run/secrets/admin-key"


def test_only_prometheus_is_on_the_servers_network() -> None:
    """PyTorch's store listens on all of a server's interfaces, and wants no key."""
    there = {
        name
        for name, service in SERVICES.items()
        if "server" in service.get("networks", ["default"])
    }
    assert there == {*BOTH, "prometheus"}
    for name in BOTH:
        assert list(SERVICES[name]["networks"]) == ["server"]
    assert set(WHOLE["networks"]) == {"server", "default"}


def test_chatting_can_be_locked_as_well() -> None:
    more = yaml.safe_load(API_KEY.read_text())
    for name in BOTH:
        assert more["services"][name]["environment"] == {"OEA_API_KEY_FILE": "/run/secrets/api-key"}
        assert set(more["services"][name]["secrets"]) == {"api-key", *SERVICES[name]["secrets"]}
    assert more["services"].keys() == set(BOTH)
    assert more["secrets"] == {"api-key": {"file": "./secrets/api-key"}}


class TestSecrets:
    @pytest.fixture
    def script(self, tmp_path: Path) -> Path:
        return Path(shutil.copy(COMPOSE / "secrets.sh", tmp_path))

    def made(self, script: Path, umask: int = 0o022) -> dict[str, Path]:
        subprocess.run([script], check=True, umask=umask)
        return {path.name: path for path in (script.parent / "secrets").iterdir()}

    def test_makes_what_the_files_name(self, script: Path) -> None:
        wanted = WHOLE["secrets"].keys() | yaml.safe_load(API_KEY.read_text())["secrets"].keys()
        assert self.made(script).keys() == wanted

    @pytest.mark.parametrize("umask", [0o022, 0o077, 0o000])
    def test_nobody_else_here_reads_them_and_a_containers_user_does(
        self, script: Path, umask: int
    ) -> None:
        files = self.made(script, umask)
        assert (script.parent / "secrets").stat().st_mode & 0o777 == 0o700
        assert {path.stat().st_mode & 0o777 for path in files.values()} == {0o444}

    def test_each_is_random_and_can_be_sent_in_a_header(self, script: Path) -> None:
        keys = [path.read_text() for path in self.made(script).values()]
        assert len(set(keys)) == len(keys)
        assert all(re.fullmatch("[0-9a-f]{64}", key) for key in keys)

    def test_one_that_is_there_stays(self, script: Path) -> None:
        path = self.made(script)["admin-key"]
        path.chmod(0o600)
        path.write_text("mine\n")
        assert self.made(script)["admin-key"].read_text() == "mine\n"

    def test_git_leaves_them_alone(self) -> None:
        assert "secrets/" in (COMPOSE / ".gitignore").read_text().splitlines()


def test_grafana_is_provisioned() -> None:
    grafana = SERVICES["grafana"]
    (source,) = yaml.safe_load(
        (DEPLOY / "grafana/provisioning/datasources/prometheus.yml").read_text()
    )["datasources"]
    assert source["url"] == "$PROMETHEUS_URL"
    assert grafana["environment"]["PROMETHEUS_URL"] == "http://prometheus:9090"
    assert (
        grafana["environment"]["GF_SECURITY_ADMIN_PASSWORD__FILE"]
        == "/run/secrets/grafana-password"
    )
    (provider,) = yaml.safe_load(
        (DEPLOY / "grafana/provisioning/dashboards/oea-server.yml").read_text()
    )["providers"]
    targets = {Path(target) for _, target, *_ in mounts(grafana)}
    assert Path(provider["options"]["path"]) / "oea-server.json" in targets
    assert Path("/etc/grafana/provisioning") in targets


@pytest.mark.skipif(
    shutil.which("promtool") is None,
    reason="needs promtool: apt-get install prometheus (make system)",
)
def test_promtool(tmp_path: Path) -> None:
    """With the rules where the mounts put them."""
    shutil.copy(COMPOSE / "prometheus.yml", tmp_path)
    shutil.copytree(PROMETHEUS / "rules", tmp_path / "rules")
    config = tmp_path / "prometheus.yml"
    done = subprocess.run(
        ["promtool", "check", "config", config], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(
    shutil.which("docker-compose") is None, reason="needs docker-compose: apt-get install it"
)
@pytest.mark.parametrize("profile", ["cpu", "gpu"])
@pytest.mark.parametrize("more", [[], [API_KEY]], ids=["alone", "api-key"])
def test_docker_compose_accepts_it(profile: str, more: list[Path]) -> None:
    files = [word for path in (FILE, *more) for word in ("--file", str(path))]
    done = subprocess.run(
        ["docker-compose", *files, "--profile", profile, "config"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    server = yaml.safe_load(done.stdout)["services"]["server" if profile == "cpu" else "server-gpu"]
    keys = {name for name in server["environment"] if name.startswith("OEA_")}
    assert keys == {"OEA_ADMIN_KEY_FILE", *(["OEA_API_KEY_FILE"] if more else [])}
