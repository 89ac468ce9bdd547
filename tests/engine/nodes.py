"""A server on two nodes, which are two processes of this machine: a rank on each."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from oea_server_demo import MODEL

import oea_server
from oea_server.client.server import SGLANG, Server
from tests.engine.patched import patched_copy
from tests.servers import COMMON

RECORDER = Path(__file__).parents[1] / "plugin"
TOGETHER = ("--tp-size", "2", "--nnodes", "2")
NO_NCCL = {"SGLANG_NCCL_SO_PATH": "none"}
"""SGLang 0.5.17 with two ranks uses NCCL wherever it is installed, and then misses the GPU."""


class Node(NamedTuple):
    """What a node is started with."""

    variables: dict[str, str] = {}  # noqa: RUF012
    flags: Sequence[str] = ()
    path: Sequence[Path] = ()
    """First on its PYTHONPATH."""


def two_nodes(*nodes: Node) -> list[Server]:
    """Both, not started yet."""
    # SGLang counts its ports from here; from a server's own, others may be in the way
    address = f"127.0.0.1:{20_000 + os.getpid() % 8_000}"
    return [
        Server(
            *(
                "--model-path",
                str(MODEL),
                "--served-model-name",
                "demo",
                *COMMON,
                *TOGETHER,
                *node.flags,
            ),
            *("--node-rank", str(rank), "--dist-init-addr", address),
            environment={
                **NO_NCCL,
                **node.variables,
                "PYTHONPATH": os.pathsep.join(
                    [*map(str, node.path), str(RECORDER), os.environ.get("PYTHONPATH", "")]
                ),
            },
            command=SGLANG,
        )
        for rank, node in enumerate(nodes)
    ]


def start(servers: Sequence[Server]) -> list[bool]:
    """Start all at once. Which of them serve; the others have ended."""

    def serves(server: Server) -> bool:
        try:
            server.start()
        except RuntimeError:
            return False
        return True

    with ThreadPoolExecutor(len(servers)) as pool:
        return list(pool.map(serves, servers))


def stop(servers: Sequence[Server]) -> None:
    """Stop all at once: one alone waits for the others' ranks."""
    with ThreadPoolExecutor(max(1, len(servers))) as pool:
        list(pool.map(Server.stop, servers))


def said(server: Server) -> list[str]:
    """Our last words in its log."""
    return re.findall(r"^oea-server: (.*)$", server.log.read_text(errors="replace"), re.MULTILINE)


def metadata(folder: Path, package: str, number: str) -> Path:
    """A folder in which a package says that it is another version."""
    name = package.replace("-", "_")
    info = folder / f"{name}-{number}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {number}\n")
    groups = {"sglang.srt.plugins": "oea = oea_server.engine.plugin:activate"}
    groups["sglang.srt.platforms"] = "oea_cpu = oea_server.cpu.entry:activate"
    if package == "oea-server":
        (info / "entry_points.txt").write_text(
            "".join(f"[{group}]\n{line}\n" for group, line in groups.items())
        )
    assert version(package) != number
    return folder


def other_code(folder: Path) -> Path:
    """A folder with this package, changed."""
    copy = folder / "oea_server"
    shutil.copytree(Path(oea_server.__file__).parent, copy)
    (copy / "__init__.py").write_text((copy / "__init__.py").read_text() + "\n# changed\n")
    return folder


def patched(folder: Path) -> Path:
    """A folder with SGLang, patched."""
    folder.mkdir()
    return patched_copy(folder)
