"""Our seams in this process, and a runtime that adopted a model."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from importlib.util import find_spec

import pytest
import torch

from oea_server.engine import options, plugin, runtime
from oea_server.engine.routers import Router
from oea_server.engine.seams import SEAMS
from oea_server.settings import Settings


@pytest.fixture(scope="session")
def plugged() -> None:
    from sglang.srt.plugins import load_plugins

    originals = {seam: plugin.resolve(seam.target) for seam in SEAMS}
    assert all(original is not None for original in originals.values())
    assert not any(plugin.took_hold(seam, original) for seam, original in originals.items())
    load_plugins()
    assert plugin.active
    assert plugin.patched == (find_spec(plugin.PATCHED) is not None)
    for seam, original in originals.items():
        assert plugin.took_hold(seam, original) == (seam in plugin.hooks())


@pytest.fixture
def now(plugged: None) -> Iterator[runtime.Runtime]:
    """A runtime that adopted one layer (5) of 16 experts, top 4, and counts it."""
    before = runtime.current
    adopted = runtime.Runtime(Settings(k0="1", min_batch=2))
    assert adopted.adopt([Router(5, 4, True, None)], 16, torch.device("cpu")) == []
    adopted.start_counting(16, 1, torch.device("cpu"))
    runtime.current = adopted
    yield adopted
    runtime.current = before


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
    """The line with which the whole server was ended, once it was; the table has nothing to say
    here."""
    signals: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda pid, signum: signals.append((pid, signum)))
    monkeypatch.setattr(options, "CONFLICTS", ())

    def line() -> str:
        assert signals == [(os.getppid(), signal.SIGQUIT)]
        (said,) = capsys.readouterr().err.splitlines()
        return said

    return line
