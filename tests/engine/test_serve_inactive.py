"""A model without experts: refused, or served vanilla when that is asked for, and said so
everywhere."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import requests
import torch
from oea_server_demo import MODEL
from safetensors.torch import save_file

from oea_server.client.server import Server
from oea_server.lab.demo.build import CONFIG
from tests.servers import Servers

pytestmark = pytest.mark.server("own")


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A one-layer Qwen3 with the demo's tokenizer."""
    directory = tmp_path_factory.mktemp("dense")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(MODEL / name, directory)
    config = {name: value for name, value in CONFIG.items() if "expert" not in name}
    config |= {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "num_hidden_layers": 1}
    (directory / "config.json").write_text(json.dumps(config))
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens": (2048, hidden),
        "lm_head": (2048, hidden),
        "model.norm": (hidden,),
        "model.layers.0.input_layernorm": (hidden,),
        "model.layers.0.post_attention_layernorm": (hidden,),
        "model.layers.0.self_attn.q_norm": (64,),
        "model.layers.0.self_attn.k_norm": (64,),
        "model.layers.0.self_attn.q_proj": (256, hidden),
        "model.layers.0.self_attn.k_proj": (128, hidden),
        "model.layers.0.self_attn.v_proj": (128, hidden),
        "model.layers.0.self_attn.o_proj": (hidden, 256),
        "model.layers.0.mlp.gate_proj": (inner, hidden),
        "model.layers.0.mlp.up_proj": (inner, hidden),
        "model.layers.0.mlp.down_proj": (hidden, inner),
    }
    weights = {
        f"{name}.weight": torch.randn(shape) / shape[-1] ** 0.5 for name, shape in shapes.items()
    }
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    return directory


def test_refused_unless_asked_for(servers: Servers, dense: Path) -> None:
    servers.stop()
    with pytest.raises(
        RuntimeError, match="qwen3 has no experts to route; --oea-allow-inactive serves it vanilla"
    ):
        Server("--model-path", str(dense)).start()


def test_served_vanilla_and_said_so(servers: Servers, dense: Path) -> None:
    servers.stop()
    flags = ("--model-path", str(dense), "--max-total-tokens", "4096", "--oea-allow-inactive")
    with Server(*flags) as server:
        reply = server.client.chat.completions.create(
            model="any", messages=[{"role": "user", "content": "hello"}], max_tokens=4
        )
        assert reply.choices[0].message.content is not None
        reason = "the model has no experts to route"
        text = requests.get(f"{server.url}/metrics", timeout=30).text
        assert "oea_router_active 0.0" in text
        assert f'oea_router_limits{{reason="{reason}"}} 1.0' in text
        assert f"OEA: router inactive: {reason}" in server.log.read_text()
