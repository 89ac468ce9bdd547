"""Ports that are free, and stay so while a server starts."""

from __future__ import annotations

import random
import socket
from pathlib import Path

import pytest

from oea_server.client import ports


def test_one_that_is_taken_is_not_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    free = ports.free()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", free))
        other = next(port for port in range(free + 1, free + 50) if _is_free(port))
        monkeypatch.setattr(random, "sample", lambda *_: [free, other])
        assert ports.free() == other
        monkeypatch.setattr(random, "sample", lambda *_: [free])
        with pytest.raises(OSError, match="no free port"):
            ports.free()


def test_none_is_of_those_that_connections_get() -> None:
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert all(ports.free() + 1000 < lowest for _ in range(50))


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0
