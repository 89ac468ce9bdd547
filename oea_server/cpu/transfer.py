"""The transfer of KV caches between the servers of a disaggregated pair, on one machine.

Seam: `mooncake.engine.TransferEngine`, which SGLang's `mooncake` backend writes bytes with into
another process's memory, over RDMA or TCP. Here that process writes them itself, as a Unix socket
tells it. Who is paired with whom, which pages go where, and when a request is ready stays SGLang's.
A package `mooncake` that is installed is left alone. And
`MooncakeKVSender.supports_host_tensor_indices`: without it SGLang hands on page numbers as they
are, not by way of pinned memory and an event of CUDA's.

A process writes only for the user that it belongs to, and only where SGLang has registered memory.
"""

from __future__ import annotations

import ctypes
import importlib.util
import logging
import os
import secrets
import socket
import struct
import sys
import threading
from types import ModuleType

logger = logging.getLogger(__name__)

BLOCK = struct.Struct("<QQ")
"""Where bytes go, and how many. Behind the last block comes one without any."""
DONE, REFUSED = b"\0", b"\1"
PATIENCE = 60.0
"""Seconds until a process that does not answer is given up."""


def install() -> None:
    """Put the stand-in where SGLang imports Mooncake's engine."""
    if "mooncake" in sys.modules or importlib.util.find_spec("mooncake") is not None:
        return
    package, engine = ModuleType("mooncake"), ModuleType("mooncake.engine")
    engine.TransferEngine, package.engine = TransferEngine, engine  # type: ignore[attr-defined]
    sys.modules.update({"mooncake": package, "mooncake.engine": engine})


class TransferEngine:
    """As much of Mooncake's as SGLang's backend calls. What fails is told by a number below 0."""

    def __init__(self) -> None:
        from sglang.srt.disaggregation.mooncake.conn import MooncakeKVSender

        MooncakeKVSender.supports_host_tensor_indices = False
        self._registered: dict[int, int] = {}
        self._number = secrets.randbits(62)
        self._inbox = socket.socket(socket.AF_UNIX)

    def initialize(
        self, hostname: str, metadata_server: str, protocol: str, device_name: str
    ) -> int:
        """Be there for others."""
        self._inbox.bind(address_of(self._number))
        self._inbox.listen()
        threading.Thread(target=self._serve, name="oea-transfer", daemon=True).start()
        logger.warning(
            "OEA: no mooncake here: KV caches are transferred between processes of this machine"
            " alone"
        )
        return 0

    def get_rpc_port(self) -> int:
        """What tells this process from others behind its host's name: SGLang's session is
        HOST:PORT."""
        return self._number

    def batch_register_memory(self, addresses: list[int], lengths: list[int]) -> int:
        """Let other processes write at these addresses."""
        self._registered.update(zip(addresses, lengths, strict=True))
        return 0

    def batch_unregister_memory(self, addresses: list[int]) -> int:
        """Let other processes no longer write at these addresses."""
        for address in addresses:
            self._registered.pop(address, None)
        return 0

    def batch_transfer_sync_write(
        self, session: str, sources: list[int], targets: list[int], lengths: list[int]
    ) -> int:
        """Have the process of a session write bytes of this one into its memory, and wait until it
        has."""
        with socket.socket(socket.AF_UNIX) as peer:
            peer.settimeout(PATIENCE)
            try:
                peer.connect(address_of(int(session.rpartition(":")[2])))
                for source, target, length in zip(sources, targets, lengths, strict=True):
                    peer.sendall(BLOCK.pack(target, length))
                    peer.sendall(memory(source, length))
                peer.sendall(BLOCK.pack(0, 0))
                return 0 if peer.recv(1) == DONE else -1
            except OSError as error:
                logger.warning("OEA: session %s: %s", session, error)
                return -1

    def _serve(self) -> None:
        while True:
            peer, _ = self._inbox.accept()
            with peer:
                peer.settimeout(PATIENCE)
                try:
                    peer.sendall(DONE if self._written(peer) else REFUSED)
                except OSError as error:
                    logger.warning("OEA: a transfer ended early: %s", error)

    def _written(self, peer: socket.socket) -> bool:
        """Whether all that a peer sends is where it belongs."""
        _, user, _ = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if user != os.getuid():
            return False
        while True:
            target, length = BLOCK.unpack(exactly(peer, memoryview(bytearray(BLOCK.size))))
            if not length:
                return True
            if not self._holds(target, length):
                logger.warning(
                    "OEA: refused to write %d bytes where no memory is registered", length
                )
                return False
            exactly(peer, memory(target, length))

    def _holds(self, target: int, length: int) -> bool:
        return any(
            start <= target and target + length <= start + size
            for start, size in self._registered.items()
        )


def address_of(number: int) -> str:
    """Of a Unix socket without a file."""
    return f"\0oea-transfer-{number}"


def memory(address: int, length: int) -> memoryview:
    """The process's own bytes at an address."""
    return memoryview((ctypes.c_char * length).from_address(address)).cast("B")


def exactly(peer: socket.socket, into: memoryview) -> memoryview:
    """Fill a buffer from a socket.

    Raises:
        ConnectionError: the peer has ended before.
    """
    rest = into
    while rest:
        read = peer.recv_into(rest)
        if not read:
            raise ConnectionError("the peer has ended")
        rest = rest[read:]
    return into
