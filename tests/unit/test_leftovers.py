"""What SGLang leaves of a start is removed, and nothing of another's."""

from __future__ import annotations

import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

from oea_server.engine import leftovers


@dataclass
class PortArgs:
    tokenizer_ipc_name: str
    scheduler_input_ipc_name: str = "ipc:///tmp/two"
    nccl_port: int = 3
    tokenizer_worker_ipc_name: str | None = None
    rpc_ipc_name: str = "tcp://127.0.0.1:5"
    instance_id: str = "c109f40a3f7e"


def test_sockets_are_those_that_are_files() -> None:
    assert leftovers.sockets(PortArgs("ipc:///tmp/one")) == [Path("/tmp/one"), Path("/tmp/two")]


def test_a_file_that_is_gone_does_not_keep_the_others(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "bound"))
        (tmp_path / "never used").touch()
        leftovers.remove([tmp_path / "gone", tmp_path / "bound", tmp_path / "never used"], [])
    assert list(tmp_path.iterdir()) == []


def test_shared_memory_of_this_start_goes_and_that_of_others_stays(tmp_path: Path) -> None:
    mine = (
        "sgl_shm_mq_25332_0e856a19",
        "sglang_loads_c109f40a3f7e_9070a1db.shm",
        "sglang_loads_one_9070a1db.shm",
    )
    others = (
        "sgl_shm_mq_2533_0e856a19",
        "sgl_shm_mq_253321_25332",
        "sglang_loads_06153edfc3ae_2a08.shm",
        "25332",
    )
    for name in (*mine, *others):
        (tmp_path / name).touch()
    shared = leftovers.patterns(PortArgs("ipc:///tmp/one"), [SimpleNamespace(pid=25332)])
    leftovers.remove([], shared, tmp_path)
    assert {each.name for each in tmp_path.iterdir()} == set(others)


def test_they_are_removed_at_the_end_of_the_process(tmp_path: Path) -> None:
    (tmp_path / "one").touch()
    script = (
        "from tests.unit.test_leftovers import PortArgs, leftovers\n"
        f"leftovers.remove_at_end(PortArgs('ipc://{tmp_path}/one', ''))\n"
        "raise KeyboardInterrupt\n"
    )
    subprocess.run([sys.executable, "-c", script], check=False, capture_output=True)
    assert list(tmp_path.iterdir()) == []
