"""Every lock has a hash for all it names, tells of no index, and holds what is asked for and what
is here."""

from __future__ import annotations

import re
import subprocess
import tomllib
from importlib.metadata import distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.deploy.pins import LOCKS, PLATFORMS, ROOT, entries, pins, required

MAIN = LOCKS["constraints.txt"]
LOWER = LOCKS["constraints-0.5.17.txt"]
IMAGE = LOCKS["deploy/docker/requirements-cpu.txt"]
ROUTER = LOCKS["deploy/k8s/components/router/requirements.txt"]
MAKEFILE = (ROOT / "Makefile").read_text()
EXTRAS = ("cpu", "dev", "load", "qualify")

each_lock = pytest.mark.parametrize("path", LOCKS.values(), ids=LOCKS)
each_platform = pytest.mark.parametrize(
    "platform",
    PLATFORMS,
    ids=[f"{each['python_version']}-{each['platform_machine']}" for each in PLATFORMS],
)


def test_all_are_there() -> None:
    assert len(LOCKS) == 6
    assert all(path.is_file() for path in LOCKS.values())


@each_lock
def test_everything_has_hashes(path: Path) -> None:
    found = entries(path)
    assert len(found) >= 10
    for pin in found:
        assert pin.hashes, pin.name
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", each) for each in pin.hashes), pin.name


@each_lock
def test_it_tells_of_no_index_and_no_place(path: Path) -> None:
    text = path.read_text()
    assert "://" not in text
    assert not re.search(
        r"^ *-(?!-hash=)|^ *#(?! (This file was|   make pins$))|[\w.]/\w", text, flags=re.MULTILINE
    )


@each_lock
@each_platform
def test_it_holds_together(path: Path, platform: dict[str, str]) -> None:
    """One version of each package on every platform."""
    assert pins(path, platform)


@each_platform
@pytest.mark.parametrize(
    ("path", "extras"),
    [(MAIN, EXTRAS), (LOWER, EXTRAS), (IMAGE, ("cpu",))],
    ids=["main", "lower", "image"],
)
def test_what_we_ask_for_is_in_it(
    path: Path, extras: tuple[str, ...], platform: dict[str, str]
) -> None:
    locked = pins(path, platform)
    for requirement in required(*extras):
        if requirement.marker and not requirement.marker.evaluate(
            {**platform, "sys_platform": "linux"}
        ):
            continue
        version = locked[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), requirement


def test_the_lower_one_is_of_the_oldest_sglang() -> None:
    (sglang,) = (each for each in required() if each.name == "sglang")
    bounds = {each.operator: each.version for each in sglang.specifier}
    assert (pins(LOWER)["sglang"], pins(MAIN)["sglang"]) == (bounds[">="], bounds["<="])
    assert LOWER.name == f"constraints-{bounds['>=']}.txt"


def test_this_environment_is_what_is_locked() -> None:
    here: dict[str, str] = {
        canonicalize_name(each.metadata["Name"]): each.version for each in distributions()
    }
    lock = LOWER if here["sglang"] == pins(LOWER)["sglang"] else MAIN
    locked = pins(lock)
    differ = {
        name: (here[name], locked[name])
        for name in here.keys() & locked.keys()
        if here[name] != locked[name]
    }
    assert not differ.keys() - {"pip"}, differ  # a Python brings its own
    assert len(here.keys() & locked.keys()) > 200


def test_the_image_is_locked_as_we_test() -> None:
    ours = pins(MAIN)
    assert pins(IMAGE).items() <= ours.items()
    excludes = (ROOT / "deploy/docker/cpu-excludes.txt").read_text().splitlines()
    assert not {line for line in excludes if line and not line.startswith("#")} & pins(IMAGE).keys()
    cuda = {name for name in pins(IMAGE) if name.startswith(("nvidia-", "cuda-"))}
    assert cuda <= {"nvidia-ml-py"}, "which is Python alone"


def test_the_image_has_what_torchs_own_build_requires() -> None:
    """It comes from another index, without what it requires."""
    for line in requires("torch") or []:
        requirement = Requirement(line)
        name = canonicalize_name(requirement.name)
        if not name.startswith(("nvidia-", "cuda-")) and (
            requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        ):
            assert name in pins(IMAGE), line


def test_the_router_is_the_one_that_we_test() -> None:
    overlay = (ROOT / "deploy/k8s/overlays/qwen3-30b-router/kustomization.yaml").read_text()
    deployed = re.findall(r"newTag: (\S+)", overlay)
    assert deployed == [pins(ROUTER)["sglang-router"]] == [pins(MAIN)["sglang-router"]]


class TestInstalling:
    """Whoever installs asks for hashes."""

    FILES = (
        "Makefile",
        "Dockerfile",
        "deploy/docker/install.py",
        "deploy/k8s/components/router/Dockerfile",
    )

    @pytest.mark.parametrize("name", FILES)
    def test_by_hash(self, name: str) -> None:
        """But for our own sources, and PyTorch's CPU builds, whose index could not be read."""
        text = re.sub(r"\\\n\s*", " ", (ROOT / name).read_text())
        commands = re.findall(
            r"(?:\bpip install|\bpip\((?!\*)).*?(?:&&|$)", text, flags=re.MULTILINE
        )
        assert commands
        exempt = re.compile(r"--editable \.|--index-url|zentorch==|arguments\.wheel")
        unhashed = [
            each for each in commands if "--require-hashes" not in each and not exempt.search(each)
        ]
        assert unhashed == []

    def test_the_build_backend_is_locked(self) -> None:
        (requirement,) = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"][
            "requires"
        ]
        assert Requirement(requirement).specifier.contains(pins(MAIN)["setuptools"])
        assert "--no-build-isolation --wheel-dir" in (ROOT / "Dockerfile").read_text()
        for line in re.findall(r"uv pip install.*(?:--editable|--requirement).*", MAKEFILE):
            assert "--build-constraints" in line

    @pytest.mark.parametrize("name", ["setuptools", "uv", "torch"])
    def test_sed_takes_one_entry_of_a_lock(self, name: str) -> None:
        """As Makefile and Dockerfile do, which may have no Python yet that reads more."""
        script = rf"/^{name}==/,/[^\\]$/p"
        for file in ("Makefile", "Dockerfile"):
            scripts = re.findall(r"sed -n '(.*?)'", (ROOT / file).read_text().replace("$$", "$"))
            assert scripts
            assert all(re.sub(r"\^\w+==", f"^{name}==", each) == script for each in scripts)
        done = subprocess.run(
            ["sed", "-n", script, MAIN], capture_output=True, text=True, check=True
        )
        (block,) = re.findall(rf"^{name}==(?:.*\\\n)+.*\n", MAIN.read_text(), flags=re.MULTILINE)
        assert done.stdout == block


def test_pins_makes_every_lock() -> None:
    (recipe,) = re.findall(r"^pins: setup.*\n((?:\t.*\n)+)", MAKEFILE, flags=re.MULTILINE)
    assert set(re.findall(r"\$\(COMPILE\) (\S+)", recipe)) == set(LOCKS)
