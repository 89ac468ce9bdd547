"""deploy/compose: what it mounts exists, what it pulls is pinned, and one server runs, the one that Prometheus asks."""

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
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(FILE.read_text())["services"]
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
        volumes = yaml.safe_load(FILE.read_text())["volumes"]
        for source, *_ in mounts(SERVICES[name]):
            assert (COMPOSE / source).resolve().exists() if source.startswith(".") else source in volumes

    def test_its_image_is_pinned(self, name: str) -> None:
        assert re.search(r":v?\d+\.\d+\.\d+(-cpu)?$", SERVICES[name]["image"])

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
        assert SERVICES[name]["networks"]["default"]["aliases"] == [target.removesuffix(":30000")]
    alone["scrape_configs"][0]["static_configs"][0]["targets"] = [target]
    assert here == alone


def test_grafana_is_provisioned() -> None:
    grafana = SERVICES["grafana"]
    (source,) = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yml").read_text())["datasources"]
    assert source["url"] == "$PROMETHEUS_URL"
    assert grafana["environment"]["PROMETHEUS_URL"] == "http://prometheus:9090"
    (provider,) = yaml.safe_load((DEPLOY / "grafana/provisioning/dashboards/oea-server.yml").read_text())["providers"]
    targets = {Path(target) for _, target, *_ in mounts(grafana)}
    assert Path(provider["options"]["path"]) / "oea-server.json" in targets
    assert Path("/etc/grafana/provisioning") in targets


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool: apt-get install prometheus (make system)")
def test_promtool(tmp_path: Path) -> None:
    """With the rules where the mounts put them."""
    shutil.copy(COMPOSE / "prometheus.yml", tmp_path)
    shutil.copytree(PROMETHEUS / "rules", tmp_path / "rules")
    config = tmp_path / "prometheus.yml"
    done = subprocess.run(["promtool", "check", "config", config], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(shutil.which("docker-compose") is None, reason="needs docker-compose: apt-get install it")
@pytest.mark.parametrize("profile", ["cpu", "gpu"])
def test_docker_compose_accepts_it(profile: str) -> None:
    command = ["docker-compose", "--file", str(FILE), "--profile", profile, "config", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
