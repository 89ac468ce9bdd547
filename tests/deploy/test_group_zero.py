"""The image's cache, made as the Dockerfile makes it, for the user ids that OpenShift gives: any,
of group 0."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.test_folders import user

DOCKERFILE = (Path(__file__).parents[2] / "Dockerfile").read_text()
MADE = re.findall(r"(install -d .*) /cache$", DOCKERFILE, flags=re.MULTILINE)


@pytest.fixture
def around() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="oea-image-") as name:
        os.chmod(name, 0o755)
        yield Path(name)


def test_both_targets_make_it() -> None:
    assert len(MADE) == 2


@pytest.mark.parametrize("command", MADE, ids=["cpu", "gpu"])
@pytest.mark.parametrize(
    ("uid", "gid", "can"),
    [(10001, 10001, True), (1000660000, 0, True), (1000660000, 1000660000, False)],
)
def test_who_can_write_to_it(around: Path, command: str, uid: int, gid: int, can: bool) -> None:
    if os.geteuid():
        pytest.skip("needs root")
    cache = around / "cache"
    subprocess.run([*shlex.split(command), str(cache)], check=True)
    with user(uid, gid):
        try:
            (cache / "inductor").mkdir()
        except PermissionError:
            made = False
        else:
            made = True
    assert made == can
