"""Models in Qwen3-MoE's architecture with random weights, made in seconds, for what needs a shape
and no sense.

They route like real ones (128 experts, top 8) and speak gibberish. Embedding and router are
scaled so that router logits spread about as much as a trained router's; nearly equal logits would
make every choice a tie.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SEED = 20251102
VOCAB = 2048
CONFIG: Mapping[str, Any] = {
    "architectures": ["Qwen3MoeForCausalLM"],
    "model_type": "qwen3_moe",
    "dtype": "bfloat16",
    "torch_dtype": "bfloat16",
    "vocab_size": VOCAB,
    "hidden_size": 192,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "intermediate_size": 256,
    "moe_intermediate_size": 32,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "norm_topk_prob": True,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
    "hidden_act": "silu",
    "attention_bias": False,
    "attention_dropout": 0.0,
    "initializer_range": 0.02,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "rope_scaling": None,
    "sliding_window": None,
    "use_sliding_window": False,
    "tie_word_embeddings": False,
    "output_router_logits": False,
    "router_aux_loss_coef": 0.001,
    "bos_token_id": None,
    "eos_token_id": 1,
    "pad_token_id": 0,
    "use_cache": True,
}
"""The demo model's: 22 MB in bfloat16, what a repository can carry."""
SPECIAL_TOKENS = ["<|endoftext|>", "<|im_end|>", "<|im_start|>"]
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content']"
    " }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


Config = Mapping[str, Any]


def qwen3_30b(layers: int) -> Config:
    """Qwen3-30B-A3B's shape, but for its vocabulary, cut to so many layers (1.2 GB each)."""
    return {
        **CONFIG,
        "hidden_size": 2048,
        "num_hidden_layers": layers,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
        "head_dim": 128,
        "intermediate_size": 6144,
        "moe_intermediate_size": 768,
        "rope_theta": 1000000.0,
    }


def cached(name: str) -> Path:
    """A directory of that name in the user's cache."""
    return (
        Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
        / "oea-server"
        / name
    )


def default_directory(name: str) -> Path:
    """Where a model with random weights lives."""
    return cached(f"{name}-random-{SEED}")


def build(directory: Path, config: Config = CONFIG) -> Path:
    """Make a model unless it is there already; returns its directory.

    Written beside and renamed, so that an interrupted build leaves nothing that looks complete.
    """
    if (directory / "config.json").exists():
        return directory
    directory.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=directory.parent, prefix=".demo-"))
    try:
        write_tokenizer(scratch)
        write_weights(scratch, config)
        write_config(scratch, config)
        try:
            scratch.rename(directory)
        except OSError:
            if not (directory / "config.json").exists():  # else another process was faster
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return directory


def write_tokenizer(directory: Path, texts: Iterable[str] | None = None) -> Tokenizer:
    """A byte-level BPE of `VOCAB` tokens as Hugging Face reads it, with the chat template.

    Args:
        texts: to learn it from; if not given, Python's own reference documentation, which ships
            with Python.
    """
    from pydoc_data.topics import topics

    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(
        (topics[name] for name in sorted(topics)) if texts is None else texts, trainer
    )
    tokenizer.save(str(directory / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "model_max_length": CONFIG["max_position_embeddings"],
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(settings, indent=2))
    return tokenizer


def write_config(directory: Path, config: Config) -> None:
    """The model's configuration, and when it stops."""
    (directory / "config.json").write_text(json.dumps(dict(config), indent=2))
    (directory / "generation_config.json").write_text(
        json.dumps({"eos_token_id": 1, "pad_token_id": 0})
    )


def write_weights(directory: Path, config: Config = CONFIG) -> None:
    """Seeded normal weights under the checkpoint names of Hugging Face's Qwen3-MoE."""
    import torch
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(SEED)
    tensors = {
        name: (
            torch.ones(shape, dtype=torch.bfloat16)
            if std is None
            else (torch.randn(shape, generator=generator) * std).to(torch.bfloat16)
        )
        for name, shape, std in _parameters(config)
    }
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})


def _parameters(config: Config) -> list[tuple[str, tuple[int, ...], float | None]]:
    """Every parameter: name, shape, standard deviation (None: ones, the norms)."""
    hidden, vocab = config["hidden_size"], config["vocab_size"]
    head, heads, kv_heads = (
        config["head_dim"],
        config["num_attention_heads"],
        config["num_key_value_heads"],
    )
    experts, inner = config["num_experts"], config["moe_intermediate_size"]

    def linear(rows: int, cols: int, gain: float = 1.0) -> tuple[tuple[int, int], float]:
        return (rows, cols), gain / cols**0.5

    table: list[tuple[str, tuple[int, ...], float | None]] = [
        ("model.embed_tokens.weight", (vocab, hidden), 1.0),
        ("model.norm.weight", (hidden,), None),
        ("lm_head.weight", *linear(vocab, hidden, 2.0)),
    ]
    for i in range(config["num_hidden_layers"]):
        layer = f"model.layers.{i}"
        table += [
            (f"{layer}.input_layernorm.weight", (hidden,), None),
            (f"{layer}.post_attention_layernorm.weight", (hidden,), None),
            (f"{layer}.self_attn.q_norm.weight", (head,), None),
            (f"{layer}.self_attn.k_norm.weight", (head,), None),
            (f"{layer}.self_attn.q_proj.weight", *linear(heads * head, hidden)),
            (f"{layer}.self_attn.k_proj.weight", *linear(kv_heads * head, hidden)),
            (f"{layer}.self_attn.v_proj.weight", *linear(kv_heads * head, hidden)),
            (f"{layer}.self_attn.o_proj.weight", *linear(hidden, heads * head)),
            (f"{layer}.mlp.gate.weight", *linear(experts, hidden, 1.5)),
        ]
        for e in range(experts):
            table += [
                (f"{layer}.mlp.experts.{e}.gate_proj.weight", *linear(inner, hidden)),
                (f"{layer}.mlp.experts.{e}.up_proj.weight", *linear(inner, hidden)),
                (f"{layer}.mlp.experts.{e}.down_proj.weight", *linear(hidden, inner)),
            ]
    return table
