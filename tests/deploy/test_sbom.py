"""What is installed as CycloneDX, by its tool, of the environment that these tests run in."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import pytest
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
TOOL = ROOT / ".venv-audit/bin/cyclonedx-py"

pytestmark = pytest.mark.skipif(
    not TOOL.exists(), reason="needs cyclonedx-py: make .venv-audit/.ready"
)


@pytest.fixture(scope="module")
def bill(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("sbom") / "sbom.json"
    (recipe,) = re.findall(
        r"^sbom: .*\n\t@(.*)$", (ROOT / "Makefile").read_text(), flags=re.MULTILINE
    )
    words = recipe.replace("$(BIN)/python", sys.executable).replace("sbom.json", str(path)).split()
    # against the schema takes a minute; `make sbom` does it
    done = subprocess.run(
        [*words, "--no-validate"], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    loaded: dict[str, Any] = json.loads(path.read_text())
    return loaded


def test_every_distribution_is_in_it_with_its_version(bill: dict[str, Any]) -> None:
    here: dict[str, str] = {
        canonicalize_name(each.metadata["Name"]): each.version for each in distributions()
    }
    components = [*bill["components"], bill["metadata"]["component"]]
    listed = {canonicalize_name(each["name"]): each["version"] for each in components}
    assert listed == here
    assert len(here) > 200


def test_it_is_cyclonedx_and_says_where_a_package_is_from(bill: dict[str, Any]) -> None:
    assert bill["bomFormat"] == "CycloneDX"
    (torch,) = (each for each in bill["components"] if each["name"] == "torch")
    assert torch["purl"] == f"pkg:pypi/torch@{torch['version']}"
