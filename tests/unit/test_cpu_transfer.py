"""The stand-in for Mooncake's transfer engine, driven by SGLang's own class around it."""

from __future__ import annotations

import ast
import importlib.util
import logging
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from oea_server.cpu import transfer

WRAPPER = "sglang.srt.distributed.device_communicators.mooncake_transfer_engine"


def pointer(tensor: torch.Tensor) -> tuple[int, int]:
    return tensor.data_ptr(), tensor.nbytes


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Two of SGLang's, as two processes would have them."""
    for name in ("mooncake", "mooncake.engine"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    transfer.install()
    kind = importlib.import_module(WRAPPER).MooncakeTransferEngine
    yield [kind("127.0.0.1") for _ in range(2)]
    for name in ("mooncake", "mooncake.engine"):
        sys.modules.pop(name, None)


def test_bytes_go_where_sglang_has_registered_memory(engines: list[Any]) -> None:
    ours, theirs = engines
    source, target = torch.arange(5000.0), torch.zeros(6000)
    assert theirs.batch_register([target.data_ptr()], [target.nbytes]) == 0
    blocks = [(0, 3, 7), (1000, 2000, 4000)]
    at, to = source.data_ptr(), target.data_ptr()
    sent = ours.batch_transfer_sync(
        theirs.get_session_id(),
        [at + 4 * start for start, _, _ in blocks],
        [to + 4 * start for _, start, _ in blocks],
        [4 * count for _, _, count in blocks],
    )
    assert sent == 0
    expected = torch.zeros(6000)
    expected[3:10], expected[2000:6000] = source[:7], source[1000:]
    assert torch.equal(target, expected)


@pytest.mark.parametrize(("start", "length"), [(-4, 8), (9 * 4, 8), (0, 44)])
def test_nothing_is_written_elsewhere(
    engines: list[Any], start: int, length: int, caplog: pytest.LogCaptureFixture
) -> None:
    ours, theirs = engines
    source, memory = torch.ones(20), torch.zeros(30)
    middle = memory[10:20]
    theirs.batch_register([middle.data_ptr()], [middle.nbytes])
    with caplog.at_level(logging.WARNING):
        sent = ours.batch_transfer_sync(
            theirs.get_session_id(), [source.data_ptr()], [middle.data_ptr() + start], [length]
        )
    assert sent < 0
    assert not memory.any()
    assert f"refused to write {length} bytes" in caplog.text
    theirs.batch_deregister([middle.data_ptr()])
    assert (
        ours.batch_transfer_sync(
            theirs.get_session_id(), [source.data_ptr()], [middle.data_ptr()], [4]
        )
        < 0
    )


def test_another_users_bytes_are_not_taken(
    engines: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = engines
    source, target = torch.ones(4), torch.zeros(4)
    theirs.batch_register([target.data_ptr()], [target.nbytes])
    monkeypatch.setattr(os, "getuid", lambda: 4242)
    assert (
        ours.batch_transfer_sync(
            theirs.get_session_id(), *([each] for each in moved(source, target))
        )
        < 0
    )
    assert not target.any()


def moved(source: torch.Tensor, target: torch.Tensor) -> tuple[int, int, int]:
    return source.data_ptr(), target.data_ptr(), source.nbytes


def test_a_process_that_is_gone_is_a_failure_not_a_wait(engines: list[Any]) -> None:
    ours, _ = engines
    assert ours.batch_transfer_sync("127.0.0.1:12345", [0], [0], [0]) < 0


def test_a_peer_that_ends_in_between_disturbs_nobody(engines: list[Any]) -> None:
    ours, theirs = engines
    source, target = torch.ones(4), torch.zeros(4)
    theirs.batch_register([target.data_ptr()], [target.nbytes])
    number = int(theirs.get_session_id().rpartition(":")[2])
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(transfer.address_of(number))
        peer.sendall(transfer.BLOCK.pack(target.data_ptr(), 16)[:9])
    assert (
        ours.batch_transfer_sync(
            theirs.get_session_id(), *([each] for each in moved(source, target))
        )
        == 0
    )
    assert torch.equal(target, source)


def test_a_package_that_is_installed_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = object()
    monkeypatch.setitem(sys.modules, "mooncake", installed)
    transfer.install()
    assert sys.modules["mooncake"] is installed


def test_sglang_calls_what_the_stand_in_has() -> None:
    spec = importlib.util.find_spec(WRAPPER)
    assert spec is not None
    assert spec.origin is not None
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    assert "from mooncake.engine import TransferEngine" in ast.unparse(tree)
    called = {each.attr for each in ast.walk(tree) if isinstance(each, ast.Attribute)
              and ast.unparse(each.value) == "self.engine"}  # fmt: skip
    ours = {name for name in vars(transfer.TransferEngine) if not name.startswith("_")}
    assert ours <= called
    conn = pytest.importorskip("sglang.srt.disaggregation.mooncake.conn")
    manager = Path(conn.__file__).read_text(encoding="utf-8")
    used = {"batch_register", "batch_deregister", "batch_transfer_sync", "get_session_id"}
    assert all(f"self.engine.{name}(" in manager for name in used)
    if importlib.util.find_spec("sglang.srt.platforms.cpu") is not None:
        assert "supports_host_tensor_indices" in vars(conn.MooncakeKVSender)
