"""pip and uv on a patched SGLang: a wheel of the files that the series touches, in an environment
of its own."""

from __future__ import annotations

import base64
import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from oea_server.patching.installed import look
from tests.unit.test_patching import FILES, NEW, VERSION, package

INFO = f"sglang-{VERSION}.dist-info"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    contents = {name: (package().parent / name).read_bytes() for name in FILES if name != NEW}
    contents["sglang/__init__.py"] = b""
    contents[f"{INFO}/METADATA"] = (
        f"Metadata-Version: 2.1\nName: sglang\nVersion: {VERSION}\n".encode()
    )
    contents[f"{INFO}/WHEEL"] = (
        b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    )
    lines = [
        f"{name},sha256={digest(content)},{len(content)}" for name, content in contents.items()
    ]
    contents[f"{INFO}/RECORD"] = "\n".join([*lines, f"{INFO}/RECORD,,", ""]).encode()
    path = tmp_path_factory.mktemp("wheel") / f"sglang-{VERSION}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as file:
        for name, content in contents.items():
            file.writestr(name, content)
    return path


def digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")


class Environment:
    """An environment with nothing in it, and a tool that installs there."""

    def __init__(self, folder: Path, tool: str) -> None:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
        python = str(folder / "bin/python")
        pip = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check"]
        uv = [str(Path(sys.executable).with_name("uv")), "pip"]
        self._install, self._uninstall = {
            "pip": ([*pip, "install", "-q", "--no-index"], [*pip, "uninstall", "-q", "-y"]),
            "uv": (
                [*uv, "install", "-q", "--offline", "--python", python],
                [*uv, "uninstall", "-q", "--python", python],
            ),
        }[tool]
        (self.root,) = folder.glob("lib/python3*/site-packages")

    def install(self, wheel: Path, *flags: str) -> None:
        subprocess.run([*self._install, *flags, str(wheel)], check=True)

    def uninstall(self) -> None:
        subprocess.run([*self._uninstall, "sglang"], check=True)


@pytest.mark.parametrize("tool", ["pip", "uv"])
def test_nothing_of_ours_outlives_an_uninstall_or_a_reinstall(
    tmp_path: Path, wheel: Path, tool: str
) -> None:
    environment = Environment(tmp_path, tool)
    root = environment.root
    environment.install(wheel)
    released = (root / INFO / "RECORD").read_bytes()
    look(VERSION, root).apply()
    environment.uninstall()
    assert not list(root.glob("sglang*"))
    environment.install(wheel)
    look(VERSION, root).apply()
    environment.install(wheel, "--force-reinstall")
    assert not (root / NEW).exists()
    assert look(VERSION, root).state == "original"
    look(VERSION, root).apply()
    look(VERSION, root).revert()
    assert (root / INFO / "RECORD").read_bytes() == released
    environment.uninstall()
    assert not list(root.glob("sglang*"))
