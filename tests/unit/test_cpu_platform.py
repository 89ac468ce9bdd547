"""What a server on a CPU sets for its processes, and leaves alone where the user did."""

from __future__ import annotations

import os
from types import SimpleNamespace
from unittest.mock import Mock

import pytest

WANTED = {
    "OMP_WAIT_POLICY": "passive",
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "128",
    "LRU_CACHE_CAPACITY": "128",
    "SGLANG_CUDA_COREDUMP_BEFORE_CRASH": "0",
}


def test_variables_are_set_unless_the_user_did(monkeypatch: pytest.MonkeyPatch) -> None:
    import sglang.srt.platforms
    import sglang.srt.server_args  # noqa: F401

    from oea_server.engine.cpu_platform import ENVIRONMENT, OeaCpuPlatform

    monkeypatch.setattr(os, "environ", {"LRU_CACHE_CAPACITY": "7"})
    OeaCpuPlatform.apply_server_args_defaults(Mock(), SimpleNamespace(tp_size=1))
    assert os.environ == {**WANTED, "LRU_CACHE_CAPACITY": "7"}
    assert ENVIRONMENT == WANTED
