"""LoRA without pinned memory: SGLang asks for it by these names, and its own products run
without."""

from __future__ import annotations

import inspect
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from oea_server.cpu import adapters


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in adapters.PINNING:
        monkeypatch.setattr(import_module(name), "torch", torch)
    monkeypatch.setattr(torch.Tensor, "pin_memory", torch.Tensor.pin_memory)
    adapters.install()


@pytest.mark.parametrize("name", adapters.PINNING)
def test_sglang_pins_there(name: str) -> None:
    assert "pin_memory=True" in inspect.getsource(import_module(name))


def test_rows_of_two_adapters_and_of_none_get_their_own_products(installed: None) -> None:
    """SGLang's own backend: three requests, of one, four and two tokens, of which the second has no
    adapter."""
    from sglang.srt.lora.backend.lora_registry import get_backend_from_name
    from sglang.srt.model_executor.forward_batch_info import ForwardMode

    backend: Any = get_backend_from_name(adapters.BACKEND)(
        max_loras_per_batch=3, device=torch.device("cpu")
    )
    lens = [1, 4, 2]
    batch = SimpleNamespace(
        batch_size=3,
        forward_mode=ForwardMode.EXTEND,
        extend_seq_lens=torch.tensor(lens),
        extend_seq_lens_cpu=lens,
        lora_ids=["a", None, "b"],
    )
    backend.prepare_lora_batch(batch, [1, 0, 2], [0, 2, 3], [0.0, 0.5, 2.0], False)
    rows, a, b = torch.randn(7, 5), torch.randn(3, 3, 5), torch.randn(3, 6, 3)
    found = backend.run_lora_b_sgemm(
        backend.run_lora_a_sgemm(rows, a),
        b,
        output_offset_cpu=torch.tensor([0, 6]),
        base_output=torch.zeros(7, 6),
    )
    expected = torch.zeros(7, 6)
    expected[:1] = 0.5 * rows[:1] @ a[1, :2].T @ b[1, :, :2].T
    expected[5:] = 2.0 * rows[5:] @ a[2].T @ b[2].T
    torch.testing.assert_close(found, expected)


def test_factories_alone_are_other_than_torchs() -> None:
    ours = adapters.Unpinned("torch")
    assert ours.Tensor is torch.Tensor
    assert ours.zeros((2,), dtype=torch.int32, pin_memory=True).tolist() == [0, 0]
    assert ours.tensor([1.5], pin_memory=True, device="cpu").tolist() == [1.5]
