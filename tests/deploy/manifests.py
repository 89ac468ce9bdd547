"""The overlays as kubectl renders them, and what is asked of the objects."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from tests.deploy.names import DEPLOY

K8S = DEPLOY / "k8s"
OVERLAYS = sorted(
    str(path.parent.relative_to(K8S / "overlays"))
    for path in (K8S / "overlays").rglob("kustomization.yaml")
    if path.parent.name != "common"  # shared by two, and no overlay itself
)
COMPONENTS = sorted(path.parent.name for path in (K8S / "components").glob("*/kustomization.yaml"))
SERVER, ROUTER = "server", "router"
"""Names of containers."""
LWS_VARIABLES = {
    "LWS_LEADER_ADDRESS": "oea-group-0.oea-group",
    "LWS_GROUP_SIZE": "2",
    "LWS_WORKER_INDEX": "0",
}
"""What the LeaderWorkerSet operator adds to every container of a group."""
UNITS = {
    "": 1,
    "k": 10**3,
    "M": 10**6,
    "G": 10**9,
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
}

Object = dict[str, Any]

needs_kubectl = pytest.mark.skipif(
    shutil.which("kubectl") is None, reason="needs kubectl, whose kustomize renders"
)


class Pod(NamedTuple):
    """A pod template, and whose it is."""

    owner: Object
    template: Object

    @property
    def name(self) -> str:
        return f"{self.owner['kind']}/{self.owner['metadata']['name']}"

    @property
    def labels(self) -> dict[str, str]:
        return dict(self.template["metadata"]["labels"])

    @property
    def spec(self) -> Object:
        return dict(self.template["spec"])

    @property
    def container(self) -> Object:
        (only,) = self.spec["containers"]
        return dict(only)


@cache
def rendered(overlay: str) -> str:
    """YAML, as `kubectl apply -k` would send it."""
    done = subprocess.run(
        ["kubectl", "kustomize", str(K8S / "overlays" / overlay)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr  # warnings of what is deprecated
    return done.stdout


def objects(overlay: str) -> list[Object]:
    """Fresh ones, which a test may change."""
    return list(yaml.safe_load_all(rendered(overlay)))


def pods(found: list[Object]) -> Iterator[Pod]:
    """Every pod template."""
    for each in found:
        if each["kind"] == "Deployment":
            yield Pod(each, each["spec"]["template"])
        if each["kind"] == "LeaderWorkerSet":
            group = each["spec"]["leaderWorkerTemplate"]
            yield Pod(each, group["leaderTemplate"])
            yield Pod(each, group["workerTemplate"])


def servers(found: list[Object]) -> list[Pod]:
    """Those that run our image: a Deployment's, or leader and worker of a group."""
    return [pod for pod in pods(found) if pod.container["name"] == SERVER]


def of_kind(found: list[Object], kind: str) -> list[Object]:
    return [each for each in found if each["kind"] == kind]


def arguments(container: Object, extra: Mapping[str, str] = LWS_VARIABLES) -> list[str]:
    """Its args with $(VARIABLES) as Kubernetes would fill them in; a Secret's value is its name."""
    values = dict(extra)
    for variable in container.get("env", ()):
        source = variable.get("valueFrom", {})
        secret = source.get("secretKeyRef", {}).get("name")
        values[variable["name"]] = (
            variable.get("value") or secret or source["fieldRef"]["fieldPath"]
        )
    return [
        re.sub(r"\$\((\w+)\)", lambda name: values.get(name[1], name[0]), each)
        for each in container["args"]
    ]


def container_args(overlay: str) -> list[str]:
    """Literally, of the overlay's (first) server."""
    return list(servers(objects(overlay))[0].container["args"])


def container_env(overlay: str) -> dict[str, str]:
    """Literally, of the overlay's (first) server; without those that come from elsewhere."""
    variables = servers(objects(overlay))[0].container.get("env", ())
    return {each["name"]: each["value"] for each in variables if "value" in each}


def flag(container: Object, name: str, default: str = "") -> str:
    """The value of a --flag=value."""
    given = [each.partition("=")[2] for each in container["args"] if each.partition("=")[0] == name]
    return given[-1] if given else default


def quantity(text: str | int) -> float:
    """``4Gi`` -> 4294967296."""
    number, unit = re.fullmatch(r"([\d.]+)(\w*)", str(text)).groups()  # type: ignore[union-attr]
    return float(number) * UNITS[unit]


def read(path: Path) -> Object:
    """One YAML file with one object."""
    loaded: Object = yaml.safe_load(path.read_text())
    return loaded
