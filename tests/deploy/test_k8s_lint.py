"""yamllint over deploy/, checkov over what is rendered. Exceptions are in .yamllint and
.checkov.yaml, with reasons."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.manifests import OVERLAYS, needs_kubectl, objects, pods
from tests.deploy.names import DEPLOY

ROOT = DEPLOY.parent
CHECKOV = shutil.which("checkov") or shutil.which("checkov", path=str(ROOT / ".venv-checkov/bin"))
RDMA = {"CKV_K8S_25"}
"""Added capabilities: IPC_LOCK, which RDMA needs and nothing else has."""


def test_yamllint_is_content() -> None:
    command = [
        sys.executable,
        "-m",
        "yamllint",
        "--strict",
        "-c",
        str(ROOT / ".yamllint"),
        str(DEPLOY),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def failed(path: Path) -> set[str]:
    """Checks that checkov fails on one file."""
    assert CHECKOV is not None
    done = subprocess.run(
        [CHECKOV, "--config-file", str(ROOT / ".checkov.yaml"), "-o", "json", "-f", str(path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=path.parent,
    )
    report: dict[str, Any] = json.loads(done.stdout)
    assert report["summary"]["passed"] > 20, "checkov looked at nothing"
    return {check["check_id"] for check in report["results"]["failed_checks"]}


@needs_kubectl
@pytest.mark.skipif(
    CHECKOV is None, reason="needs checkov, in an environment of its own: see deploy/README.md"
)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_checkov_is_content(overlay: str, tmp_path: Path) -> None:
    found = objects(overlay)
    for number, pod in enumerate(pods(found)):
        # which checkov does not know: the same pods as Deployments
        if pod.owner["kind"] == "LeaderWorkerSet":
            metadata = {
                "name": f"{pod.owner['metadata']['name']}-{number}",
                "namespace": "oea-server",
            }
            spec = {"selector": {"matchLabels": pod.labels}, "template": pod.template}
            found.append(
                {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec}
            )
    path = tmp_path / "rendered.yaml"
    path.write_text(yaml.safe_dump_all(found))
    # workers' probes
    expected = RDMA | {"CKV_K8S_8", "CKV_K8S_9"} if overlay == "qwen3-235b-multinode" else set()
    assert failed(path) == expected


def test_every_exception_is_explained() -> None:
    lines = (ROOT / ".checkov.yaml").read_text().splitlines()
    for above, line in pairwise(lines):
        if re.search(r"- CKV", line):
            assert above.strip().startswith("#")
