"""Models on a CPU that SGLang would serve by a Triton kernel, or with layers that no checkpoint
filled."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from oea_server_demo import MODEL

from oea_server.client.ask import ask
from oea_server.client.server import Server
from tests.engine.patched import IS_PATCHED

pytestmark = [
    pytest.mark.launch,
    pytest.mark.skipif(IS_PATCHED, reason="these tests run on a patched copy"),
]
PROMPT, TOKENS = [5, 6, 7, 9], 8


def made(folder: Path, kind: str, **fields: Any) -> Any:
    """A checkpoint of random weights with the demo's tokenizer, as transformers writes it; returns
    its model."""
    import transformers

    torch.manual_seed(0)
    sizes = {
        "hidden_size": 64,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 64,
        "moe_intermediate_size": 32,
        "num_experts": 16,
        "num_experts_per_tok": 4,
        "max_position_embeddings": 512,
        "eos_token_id": 1,
        "pad_token_id": 0,
        "vocab_size": json.loads((MODEL / "config.json").read_text())["vocab_size"],
    }
    config = getattr(transformers, f"{kind}Config")(**sizes, **fields)
    model = getattr(transformers, f"{kind}ForCausalLM")(config).bfloat16()
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(MODEL / name, folder)
    return model


def test_a_shared_expert_is_served(tmp_path: Path) -> None:
    model = made(tmp_path, "Qwen2Moe", shared_expert_intermediate_size=48, num_hidden_layers=2)
    flags = (
        "--model-path",
        str(tmp_path),
        "--dtype",
        "float32",
        "--max-total-tokens",
        "4096",
        "--oea-policy",
        "vanilla",
    )
    with Server(*flags) as server:
        sampling = {"max_new_tokens": TOKENS, "temperature": 0, "ignore_eos": True}
        asked = {"input_ids": PROMPT, "sampling_params": sampling, "return_logprob": True}
        answer = ask("POST", f"{server.url}/generate", json=asked, timeout=120).json()
    with torch.no_grad():
        logits = model.float()(torch.tensor([PROMPT + answer["output_ids"]])).logits[
            0, len(PROMPT) - 1 : -1
        ]
    assert answer["output_ids"] == logits.argmax(-1).tolist()
    served = torch.tensor([each[0] for each in answer["meta_info"]["output_token_logprobs"]])
    torch.testing.assert_close(served, logits.log_softmax(-1).max(-1).values, atol=1e-4, rtol=1e-4)


def test_layers_that_no_checkpoint_filled_are_refused(tmp_path: Path) -> None:
    made(tmp_path, "Qwen3Moe", head_dim=16, mlp_only_layers=[1], num_hidden_layers=3)
    server = Server("--model-path", str(tmp_path), "--max-total-tokens", "4096")
    with pytest.raises(RuntimeError, match="did not start"), server:
        pass
    lines = [
        line
        for line in server.log.read_text().splitlines()
        if line.startswith("oea-server: refusing")
    ]
    (line,) = lines
    assert line.startswith(
        "oea-server: refusing to start: layer 1: the checkpoint has no weights for 16 of its 16"
        " experts;"
    )
