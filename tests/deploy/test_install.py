"""deploy/docker/install.py in an environment of its own, with wheels of a few lines and no
network."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import packaging
import pytest

from tests.deploy.pins import required

INSTALL = Path(__file__).parents[2] / "deploy/docker/install.py"
PATCH = "#!/bin/sh\necho patched\n"
"""In place of our own program."""


class Image:
    """An environment as the base of an image has it, and an index beside it."""

    def __init__(self, folder: Path) -> None:
        self.index, self.pins = folder / "index", folder / "constraints.txt"
        self.index.mkdir()
        self.pins.write_text("# a lock\n")
        self.root = folder / "venv"
        subprocess.run([sys.executable, "-m", "venv", self.root], check=True)
        (self.root / "bin/oea-server").write_text(PATCH)
        (self.root / "bin/oea-server").chmod(0o755)
        self.environment = {
            "PATH": f"{self.root}/bin:/usr/bin:/bin",
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(self.index),
            "PYTHONPATH": str(folder / "path"),
        }
        # the bases have it; here without its metadata, as none of their packages
        shutil.copytree(Path(packaging.__file__).parent, folder / "path/packaging")

    def wheel(self, name: str, version: str, *requires: str, folder: str = "") -> Path:
        module, info = name.replace("-", "_"), f"{name.replace('-', '_')}-{version}.dist-info"
        path = self.index / folder / f"{module}-{version}-py3-none-any.whl"
        path.parent.mkdir(exist_ok=True)
        needs = "".join(f"Requires-Dist: {each}\n" for each in requires)
        files = {
            f"{module}/__init__.py": "",
            f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}",
            f"{info}/WHEEL": (
                "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
            ),
        }
        with zipfile.ZipFile(path, "w") as archive:
            for file, text in files.items():
                archive.writestr(file, text)
            archive.writestr(
                f"{info}/RECORD", "".join(f"{file},,\n" for file in [*files, f"{info}/RECORD"])
            )
        return path

    def has(self, name: str, version: str, *requires: str) -> None:
        """A package of the base."""
        path = self.wheel(name, version, *requires)
        command = [
            str(self.root / "bin/python"),
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            str(path),
        ]
        subprocess.run(command, check=True, env=self.environment)
        path.unlink()

    def offers(self, name: str, version: str, *requires: str, marker: str = "") -> Path:
        """A package of the index, and of the lock."""
        path = self.wheel(name, version, *requires)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        other = hashlib.sha256(b"for another platform").hexdigest()
        with self.pins.open("a") as pins:
            pins.write(
                f"{name}=={version}{marker} \\\n    --hash=sha256:{other} \\\n   "
                f" --hash=sha256:{digest}\n"
            )
        return path

    def install(self, *requires: str) -> subprocess.CompletedProcess[str]:
        """Our wheel, with these requirements."""
        wheel = self.wheel("oea-server", "0.1.0", *requires, folder="dist")
        command = [
            str(self.root / "bin/python"),
            str(INSTALL),
            "--pins",
            str(self.pins),
            str(wheel),
        ]
        return subprocess.run(
            command, capture_output=True, text=True, check=False, env=self.environment
        )

    def installed(self) -> dict[str, str]:
        command = [str(self.root / "bin/python"), "-m", "pip", "list", "--format", "freeze"]
        lines = subprocess.run(
            command, capture_output=True, text=True, check=True, env=self.environment
        ).stdout
        return dict(line.split("==") for line in lines.split())


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Image:
    image = Image(tmp_path_factory.mktemp("base"))
    image.has("sglang", "0.5.23", "gone-since")  # what it requires is its own business
    image.has("shared", "1.0")
    return image


@pytest.fixture
def image(base: Image, tmp_path: Path) -> Image:
    """A copy of the base, since each test changes it."""
    copy = object.__new__(Image)
    copy.index, copy.pins, copy.root = (
        tmp_path / "index",
        tmp_path / "constraints.txt",
        tmp_path / "venv",
    )
    copy.index.mkdir()
    copy.pins.write_text("# a lock\n")
    shutil.copytree(base.root, copy.root, symlinks=True)
    copy.environment = base.environment | {
        "PATH": f"{copy.root}/bin:/usr/bin:/bin",
        "PIP_FIND_LINKS": str(copy.index),
    }
    return copy


def test_what_is_missing_comes_by_hash_with_what_it_requires_in_turn(image: Image) -> None:
    image.offers("direct", "2.0", "indirect", "shared>=1")
    image.offers("indirect", "3.0")
    image.offers("unrelated", "4.0")
    done = image.install("sglang", "direct>=1", "windows-only; sys_platform == 'win32'", "shared")
    assert done.returncode == 0, done.stderr
    assert "added: direct 2.0, indirect 3.0, oea-server 0.1.0" in done.stdout
    assert "patched" in done.stdout
    assert {
        "direct": "2.0",
        "indirect": "3.0",
        "shared": "1.0",
    }.items() <= image.installed().items()
    assert "unrelated" not in image.installed()


def test_the_locks_version_is_taken_and_not_the_newest(image: Image) -> None:
    image.offers("direct", "2.0")
    image.wheel("direct", "2.1")
    done = image.install("direct")
    assert done.returncode == 0, done.stderr
    assert image.installed()["direct"] == "2.0"


def test_an_extra_of_what_is_there_is_looked_for(image: Image) -> None:
    image.has("fancy", "1.0", "plain; extra == 'more'", "other; extra == 'less'")
    image.offers("plain", "1.0")
    done = image.install("fancy[more]")
    assert done.returncode == 0, done.stderr
    assert "added: oea-server 0.1.0, plain 1.0" in done.stdout


def test_another_file_than_the_locked_one_is_refused(image: Image) -> None:
    path = image.offers("direct", "2.0")
    path.unlink()
    image.wheel("direct", "2.0", "shared")
    done = image.install("direct")
    assert done.returncode != 0
    assert "DO NOT MATCH THE HASHES" in done.stderr
    assert "direct" not in image.installed()


def test_an_old_starlette_is_refused_in_one_line(image: Image) -> None:
    image.has("starlette", "0.50.0")
    image.offers("starlette", "1.10.0")
    done = image.install("starlette>=1.0.1")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(
        "oea-server wants starlette>=1.0.1, this image has 0.50.0: take another base, or "
    )
    assert image.installed()["starlette"] == "0.50.0"


def test_what_the_lock_has_not_is_named(image: Image) -> None:
    done = image.install("direct", "other")
    assert done.returncode == 1
    assert (
        done.stderr
        == "constraints.txt has no direct, other, which oea-server needs and this image has not\n"
    )


def test_what_the_lock_has_for_others_alone_is_named(image: Image) -> None:
    image.offers("direct", "2.0", marker=" ; sys_platform == 'win32'")
    done = image.install("direct")
    assert done.returncode == 1
    assert (
        done.stderr.splitlines()[-1]
        == "constraints.txt has direct for other Pythons or machines alone"
    )


def test_an_image_without_sglang_is_none(image: Image) -> None:
    command = [
        str(image.root / "bin/python"),
        "-m",
        "pip",
        "uninstall",
        "--quiet",
        "--yes",
        "sglang",
    ]
    subprocess.run(command, check=True, env=os.environ | image.environment)
    done = image.install()
    assert (done.returncode, done.stderr) == (1, "no SGLang in this image\n")


def test_our_own_requirements_refuse_it() -> None:
    """CVE-2026-48710: before 1.0.1 a Host header opens what a key locks."""
    (starlette,) = (each for each in required() if each.name == "starlette")
    accepted = [
        version
        for version in ("0.50.0", "1.0.0", "1.0.1", "1.10.0")
        if starlette.specifier.contains(version)
    ]
    assert accepted == ["1.0.1", "1.10.0"]
