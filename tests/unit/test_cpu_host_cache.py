"""The stand-in for HiCache's kernel: SGLang calls it by that name, and its own pools get their
bytes back."""

from __future__ import annotations

import inspect
from importlib import import_module
from types import SimpleNamespace

import pytest
import torch

from oea_server.cpu import host_cache


def test_sglang_calls_it_by_this_name_and_these_arguments() -> None:
    pool = import_module(host_cache.POOLS).MHATokenToKVPoolHost
    for method in (pool.load_to_device_per_layer, pool.backup_from_device_all_layer):
        code = inspect.unwrap(method).__code__
        assert "transfer_kv_direct" in code.co_names
        assert tuple(inspect.signature(host_cache.transfer_kv_direct).parameters) in code.co_consts


def test_sglangs_pool_gets_back_what_it_gave(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own methods, of a pool whose memory alone is here."""
    module = import_module(host_cache.POOLS)
    monkeypatch.setattr(module, "transfer_kv_direct", None, raising=False)
    host_cache.install()
    device = [torch.randn(9, 2, 4) for _ in range(4)]
    given = [each.clone() for each in device]
    pool = object.__new__(module.MHATokenToKVPoolHost)
    pool.layout, pool.page_size, pool.target_layer_num = host_cache.LAYOUT, 1, 2
    pool.device_k_buffers, pool.device_v_buffers = tuple(device[:2]), tuple(device[2:])
    pool.device_k_data_ptrs = pool.device_v_data_ptrs = None
    pool.kv_buffer = torch.zeros(2, 2, 20, 2, 4)
    pool.k_data_refs, pool.v_data_refs = list(pool.kv_buffer[0]), list(pool.kv_buffer[1])
    pool.host_kv_data_refs = pool.k_data_refs + pool.v_data_refs
    of_0517 = SimpleNamespace(k_buffer=device[:2], v_buffer=device[2:])
    at, there = torch.tensor([1, 4, 8]), torch.tensor([19, 0, 7])
    pool.backup_from_device_all_layer(of_0517, there, at, host_cache.BACKEND)
    for each in device:
        each.zero_()
    for layer in range(2):
        pool.load_to_device_per_layer(of_0517, there, at, layer, host_cache.BACKEND)
    for now, then in zip(device, given, strict=True):
        assert torch.equal(now[at], then[at])
        assert not now[[0, 2, 3, 5, 6, 7]].any()
