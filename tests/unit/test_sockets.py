"""What SGLang's sockets leave behind is removed."""

from __future__ import annotations

import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from oea_server.engine import sockets


@dataclass
class PortArgs:
    tokenizer_ipc_name: str
    scheduler_input_ipc_name: str
    nccl_port: int
    tokenizer_worker_ipc_name: str | None
    rpc_ipc_name: str = "tcp://127.0.0.1:5"


def test_the_files_are_those_of_local_sockets() -> None:
    found = sockets.files(PortArgs("ipc:///tmp/one", "ipc:///tmp/two", 3, None))
    assert found == [Path("/tmp/one"), Path("/tmp/two")]


def test_a_file_that_is_gone_does_not_keep_the_others(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "bound"))
        (tmp_path / "never used").touch()
        sockets.remove([tmp_path / "gone", tmp_path / "bound", tmp_path / "never used"])
    assert list(tmp_path.iterdir()) == []


def test_they_are_removed_at_the_end_of_the_process(tmp_path: Path) -> None:
    (tmp_path / "one").touch()
    script = (
        "from tests.unit.test_sockets import PortArgs, sockets\n"
        f"sockets.remove_at_end(PortArgs('ipc://{tmp_path}/one', '', 3, None))\n"
        "raise KeyboardInterrupt\n"
    )
    subprocess.run([sys.executable, "-c", script], check=False, capture_output=True)
    assert list(tmp_path.iterdir()) == []
