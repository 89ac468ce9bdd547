from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from oea_server import provenance


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
