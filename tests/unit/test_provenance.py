from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from oea_server import provenance

ROOT = Path(__file__).parents[2]
IMAGE = re.compile(r"oea-server:([0-9]+[.][0-9]+[.][0-9]+)")


def test_the_version_line_names_commit_and_sglang() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "oea_server", "--version"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert re.fullmatch(
        r"oea-server \d\S+ \(commit ([0-9a-f]{12}(-dirty)?|unknown), sglang 0\.5\.\d+\)\n",
        done.stdout,
    )


def test_an_image_says_what_its_build_wrote_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provenance, "PACKAGE", tmp_path / "oea_server")
    (tmp_path / "oea_server").mkdir()
    assert provenance.commit() == "unknown"
    (tmp_path / "oea_server/COMMIT").write_text("abc123\n")
    assert provenance.commit() == "abc123"


def test_what_is_not_installed_is_absent() -> None:
    assert provenance.version("no-such-package") == "absent"


def test_every_file_that_names_a_release_names_this_one() -> None:
    files = subprocess.run(
        ["git", "grep", "-lIE", IMAGE.pattern, "--", ".", ":!CHANGELOG.md", ":!*/check.txt"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    named = {
        (path, release) for path in files for release in IMAGE.findall((ROOT / path).read_text())
    }
    release = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert {"Dockerfile", "deploy/compose/compose.yaml", "deploy/README.md"} <= set(files)
    assert {path for path, other in named if other != release} == set()
    assert provenance.version("oea-server") == release, "make setup installs it anew"
    assert f"\n## {release} (" in (ROOT / "CHANGELOG.md").read_text()
