"""The plug-in's own failures, without SGLang: each must end the process, since SGLang swallows
exceptions."""

from __future__ import annotations

import functools
import os
import signal
import uuid
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from oea_server.engine import (
    forward_mode,
    model_init,
    plugin,
    routers,
    runtime,
    start_reporting,
    warmup,
)
from oea_server.engine.seams import Seam
from oea_server.settings import Settings


def target(x: int) -> int:
    return x


def hook(original: Any, x: int) -> int:
    return int(original(x)) + 1


SEAM = Seam(f"{__name__}.target", "AROUND", f"{__name__}:hook")


class Registry:
    """Stands in for SGLang's HookRegistry, which logs failures and goes on."""

    def __init__(self, applies: bool) -> None:
        self._applies = applies

    def apply_hooks(self) -> None:
        if self._applies:
            ours, original = hook, target

            @functools.wraps(original)
            def wrapper(*args: Any) -> Any:
                return ours(original, *args)

            globals()["target"] = wrapper


@pytest.fixture
def _restore(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "target", target)
    monkeypatch.setattr(plugin, "active", False)


@pytest.mark.usefixtures("_restore")
def test_a_seam_that_takes_hold() -> None:
    registry = Registry(applies=True)
    plugin.check_after(registry, {SEAM: target})
    registry.apply_hooks()
    assert plugin.active
    assert target(1) == 2


@pytest.mark.usefixtures("_restore")
def test_a_seam_that_does_not_take_hold_ends_the_process(
    capsys: pytest.CaptureFixture[str],
) -> None:
    registry = Registry(applies=False)
    plugin.check_after(registry, {SEAM: target})
    with pytest.raises(SystemExit):
        registry.apply_hooks()
    assert f"the seam did not take hold: {SEAM.target}" in capsys.readouterr().err
    assert not plugin.active


def test_any_exception_ends_the_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(plugin, "install", broken)
    with pytest.raises(SystemExit):
        plugin.activate()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(
        "oea-server: refusing to start: the plug-in failed: RuntimeError: broken; oea-server doctor"
    )


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ([], False),
        (["HEALTH_CHECK_1"], False),
        ([f"{warmup.WARMUP_PREFIX}_1", "HEALTH_CHECK_2"], False),
        ([uuid.uuid4().hex], True),
        (["HEALTH_CHECK_1", "a user's"], True),
    ],
)
def test_traffic_is_what_users_send(ids: list[str], expected: bool) -> None:
    assert forward_mode.is_traffic(ids) is expected


def batch_of(mode: str, rids: list[str]) -> SimpleNamespace:
    kinds = {
        "is_decode": lambda: mode == "DECODE",
        "is_target_verify": lambda: mode == "TARGET_VERIFY",
    }
    return SimpleNamespace(
        forward_mode=SimpleNamespace(name=mode, **kinds), batch_size=3, rids=rids
    )


@pytest.mark.parametrize(
    ("mode", "draft"), [("EXTEND", False), ("DECODE", True), ("TARGET_VERIFY", True)]
)
def test_only_decode_passes_of_the_target_are_steps(
    monkeypatch: pytest.MonkeyPatch, mode: str, draft: bool
) -> None:
    now = runtime.Runtime(Settings())
    monkeypatch.setattr(runtime, "current", now)
    runner = SimpleNamespace(is_draft_worker=draft)
    assert forward_mode.around_forward(lambda *_: now.step, runner, batch_of(mode, ["a"])) is None


@pytest.mark.parametrize(
    ("mode", "rids", "reason"),
    [
        ("EXTEND", ["a"], "prefill"),
        ("MIXED", ["a"], "mixed"),
        ("TARGET_VERIFY", ["a"], "router"),
        ("SPLIT_PREFILL", ["a"], "other"),
        ("DECODE", ["a"], "router"),  # this runtime has none
        ("EXTEND", ["HEALTH_CHECK_1"], None),
        ("DECODE", ["HEALTH_CHECK_1"], None),
        ("IDLE", [], None),
    ],
)
def test_passes_that_are_not_ours_are_counted(
    monkeypatch: pytest.MonkeyPatch, mode: str, rids: list[str], reason: str | None
) -> None:
    now = runtime.Runtime(Settings())
    monkeypatch.setattr(runtime, "current", now)
    forward_mode.around_forward(
        lambda *_: None, SimpleNamespace(is_draft_worker=False), batch_of(mode, rids)
    )
    assert {why for why, times in now.bypassed.items() if times} == ({reason} - {None})


def test_a_decode_pass_is_a_step_and_ends_even_when_it_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = runtime.Runtime(Settings())
    monkeypatch.setattr(runtime, "current", now)
    batch, runner = batch_of("DECODE", ["a"]), SimpleNamespace(is_draft_worker=False)
    step = forward_mode.around_forward(lambda *_: now.step, runner, batch)
    assert (step.batch, step.counted, step.capturing) == (3, True, False)

    def fail(*_: Any) -> None:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        forward_mode.around_forward(fail, runner, batch)
    assert now.step is None


def test_a_model_that_cannot_be_routed_ends_the_whole_server(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    killed: list[int] = []
    monkeypatch.setattr(os, "kill", lambda pid, signum: killed.append(signum))
    monkeypatch.setattr(runtime, "current", runtime.Runtime(Settings()))
    monkeypatch.setattr(routers, "inspect", lambda model: [])
    monkeypatch.setattr(routers, "num_experts", lambda model: 0)
    monkeypatch.setattr(model_init, "redundant_experts", lambda: 0)
    monkeypatch.setattr(start_reporting, "is_reporting_rank", lambda: True)
    with pytest.raises(SystemExit):
        model_init.after_initialize_model(torch.nn.Linear(2, 2))
    assert killed == [signal.SIGQUIT]
    assert "refusing to start: the model has no experts to route" in capsys.readouterr().err


def _scheduler() -> None: ...


_scheduler.__module__ = "sglang.srt.managers.scheduler"


@pytest.mark.parametrize(
    ("target", "serves"),
    [
        (None, True),
        (target, True),  # a trainer's child
        (functools.partial(target, 1), True),
        (_scheduler, False),
        (functools.partial(_scheduler), False),
    ],
)
def test_who_serves_http_is_not_told_by_having_a_parent(
    target: Any, serves: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    import multiprocessing

    monkeypatch.setattr(multiprocessing, "current_process", lambda: SimpleNamespace(_target=target))
    monkeypatch.setattr(multiprocessing, "parent_process", SimpleNamespace)
    assert plugin.is_launcher() == serves
