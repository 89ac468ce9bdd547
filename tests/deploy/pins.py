"""The lock files, read: what each names, in which version, with which hashes."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import NamedTuple

from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LOCKS = {
    path.name if path.parent == ROOT else str(path.relative_to(ROOT)): path
    for path in (
        *sorted(ROOT.glob("constraints*.txt")),
        ROOT / "deploy/docker/requirements-cpu.txt",
        ROOT / "deploy/k8s/components/router/requirements.txt",
    )
}
PLATFORMS = [
    {"python_version": version, "python_full_version": f"{version}.9", "platform_machine": machine}
    for version in ("3.11", "3.12")
    for machine in ("x86_64", "aarch64")
]
"""What the locks are for, beside Linux and CPython."""


class Pin(NamedTuple):
    """One entry of a lock."""

    name: str
    version: str
    marker: Marker | None
    hashes: list[str]

    def holds(self, platform: dict[str, str]) -> bool:
        """Whether it is for a platform, one of PLATFORMS."""
        linux = {"sys_platform": "linux", "os_name": "posix", "implementation_name": "cpython"}
        linux |= {"platform_python_implementation": "CPython", "platform_system": "Linux"}
        return self.marker is None or self.marker.evaluate({**linux, **platform})


def entries(path: Path) -> list[Pin]:
    """Everything that a lock names.

    Raises:
        AssertionError: a line is not one version with its hashes.
    """
    text = re.sub(r"^#.*\n", "", path.read_text(), flags=re.MULTILINE)
    found = []
    for line in text.replace("\\\n", "").splitlines():
        requirement, *hashes = line.split(" --hash=")
        parsed = Requirement(requirement)
        (specifier,) = parsed.specifier
        assert specifier.operator == "==", line
        found.append(
            Pin(
                canonicalize_name(parsed.name),
                specifier.version,
                parsed.marker,
                [each.strip() for each in hashes],
            )
        )
    return found


def pins(path: Path, platform: dict[str, str] = PLATFORMS[0]) -> dict[str, str]:
    """Names and versions for one platform."""
    found = [(pin.name, pin.version) for pin in entries(path) if pin.holds(platform)]
    assert len(dict(found)) == len(found), "one version of each"
    return dict(found)


def required(*extras: str) -> list[Requirement]:
    """What pyproject.toml asks for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"]]
    for extra in extras:
        lines += project["optional-dependencies"][extra]
    return [Requirement(line) for line in lines]
