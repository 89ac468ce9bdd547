"""The second demo model's training: GLM-4.5's arithmetic, its selection bias, its layer that looks
ahead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from oea_server.lab.demo.glm4_moe import CONFIG
from oea_server.lab.demo.training import export, loop, tokens
from oea_server.lab.demo.training.network import Network
from tests.unit.test_training import trained_in_two

LAYERS, EXPERTS, K = 3, 16, 4
TINY: dict[str, Any] = {
    **CONFIG,
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "intermediate_size": 48,
    "moe_intermediate_size": 16,
    "n_routed_experts": EXPERTS,
    "num_experts_per_tok": K,
    "initializer_range": 0.3,
}
AHEAD = f"model.layers.{LAYERS}."
"""Where a checkpoint has the layer that looks ahead."""


@pytest.fixture
def network() -> Network:
    """Nothing in it is 0 or 1, so that what is left out is seen; exact in bfloat16."""
    torch.manual_seed(0)
    found = Network(TINY)
    for weight in found.parameters():
        if weight.dim() == 1:
            weight.data += torch.randn_like(weight) * 0.3
        weight.data = weight.data.bfloat16().float()
    for router in found.routers:
        router.even(torch.rand(EXPERTS), 0.25)
    return found


@pytest.fixture
def ids() -> torch.Tensor:
    return torch.randint(0, 64, (3, 20), generator=torch.Generator().manual_seed(1))


def test_network_is_hugging_faces(network: Network, ids: torch.Tensor, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    export.export(network, TINY, tmp_path)
    theirs, loaded = AutoModelForCausalLM.from_pretrained(
        tmp_path, dtype=torch.float32, output_loading_info=True
    )
    assert not loaded["missing_keys"]
    assert all(name.startswith(AHEAD) for name in loaded["unexpected_keys"])
    with torch.no_grad():
        ours, routed = network(ids)
        found = theirs(ids)
    torch.testing.assert_close(ours, found.logits, rtol=1e-4, atol=1e-4)
    assert routed.share.sum(dim=1).tolist() == pytest.approx([K] * (LAYERS - 1))


def test_looking_ahead_is_hugging_faces(
    network: Network, ids: torch.Tensor, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM
    from transformers.modeling_layers import MtpModel

    export.export(network, TINY, tmp_path)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    # how it finds the layer
    theirs._keys_to_ignore_on_load_unexpected = [AHEAD.replace(".", r"\.")]
    ahead = MtpModel.from_pretrained(theirs)  # refuses a checkpoint where a weight is missing
    following = ids[:, 1:]
    position = torch.arange(1, ids.shape[1])[None]
    with torch.no_grad():
        logits, ours, routed = network.twice(ids)
        embedded = theirs.get_input_embeddings()(following)
        hidden = ahead.layers[0](
            embedded,
            theirs.model(ids).last_hidden_state[:, :-1],
            position_embeddings=ahead.rotary_emb(embedded, position_ids=position),
            attention_mask=torch.full((len(position[0]),) * 2, -torch.inf).triu(1)[None, None],
            position_ids=position,
            past_key_values=None,
        )
        found = theirs.lm_head(hidden)
        alone, _ = network(ids)
    torch.testing.assert_close(ours, found, rtol=1e-4, atol=1e-4)
    assert torch.equal(logits, alone)
    assert len(routed.share) == LAYERS  # all but the dense one, and the one that looks ahead


def test_looking_ahead_reads_nothing_of_what_it_is_to_guess(
    network: Network, ids: torch.Tensor
) -> None:
    other = ids.clone()
    other[:, 12:] = (other[:, 12:] + 1) % 64
    with torch.no_grad():
        _, before, _ = network.twice(ids)
        _, after, _ = network.twice(other)
    # the last of them reads token 11 and guesses token 12
    torch.testing.assert_close(before[:, :11], after[:, :11])
    assert not torch.allclose(before[:, 11], after[:, 11])


def test_a_checkpoint_keeps_biases_in_float32(network: Network, tmp_path: Path) -> None:
    export.export(network, TINY, tmp_path)
    kinds = {
        name: tensor.dtype for name, tensor in load_file(tmp_path / "model.safetensors").items()
    }
    exact = {name for name, kind in kinds.items() if kind == torch.float32}
    assert exact == {
        f"model.layers.{each}.mlp.gate.e_score_correction_bias" for each in range(1, LAYERS + 1)
    }


def test_a_bias_moves_towards_an_even_load(network: Network) -> None:
    router = network.routers[0]
    bias = router.gate.get_buffer("e_score_correction_bias")
    bias.zero_()
    router.even(torch.tensor([0.5, 0.1, 0.3, 0.3] * (EXPERTS // 4)), 0.01)
    assert bias.tolist() == pytest.approx([-0.01, 0.01, 0.0, 0.0] * (EXPERTS // 4))


def test_a_bias_chooses_and_does_not_weigh(network: Network) -> None:
    router = network.routers[0]
    logits = torch.randn(5, EXPERTS)
    bias = router.gate.get_buffer("e_score_correction_bias")
    bias.zero_()
    bias[7] = 100.0
    _, weights, ids = router._choose(logits)
    assert (ids == 7).any(dim=1).all()
    own = logits.sigmoid().gather(1, ids)
    torch.testing.assert_close(
        weights, TINY["routed_scaling_factor"] * own / own.sum(dim=1, keepdim=True)
    )


def test_biases_make_loads_even(tmp_path: Path) -> None:
    """Without them nothing does: there is no loss for it."""
    numbers = np.random.default_rng(0).zipf(1.5, 4000).clip(max=63).astype(np.uint16)
    data = tokens.Data(numbers[:3000], numbers[3000:], [], {})
    even = {}
    for rate in (0.0, 0.03):
        work = tmp_path / str(rate)
        work.mkdir()
        recipe = loop.Recipe(25, batch=2, length=32, warm_up=4, balance=0.0, bias=rate)
        even[rate] = loop.look(loop.train(TINY, data, recipe, work), data.held_out, 32)["evenness"]
    assert even[0.03] > even[0.0] + 0.05, even


def test_it_learns_to_look_ahead(tmp_path: Path) -> None:
    again = np.tile(np.random.default_rng(0).permutation(40).astype(np.uint16), 100)
    recipe = loop.Recipe(50, batch=4, length=32, warm_up=4, balance=0.0)
    network = loop.train(TINY, tokens.Data(again, again, [], {}), recipe, tmp_path)
    found = loop.look(network, again, 32)
    assert found["held_out"] < 1.0  # of 3.7 for guessing
    assert found["ahead_held_out"] < 1.0
    assert found["agreed"] > 0.9
    ids = torch.from_numpy(again[:30].astype(np.int64))[None]
    with torch.no_grad():
        _, further, _ = network.twice(ids)
    right = further.argmax(dim=-1)[:, :-1] == ids[:, 2:]
    assert right.float().mean() > 0.9


def test_the_weight_of_looking_ahead_falls_with_the_rate() -> None:
    recipe = loop.Recipe(1000, fall=0.4)
    assert [recipe.ahead_at(step) for step in (0, 600, 800, 1000)] == pytest.approx(
        [0.3, 0.3, 0.2, 0.1]
    )


def test_a_run_that_was_stopped_is_the_run_that_was_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "SAVE_EVERY", 3)
    numbers = np.random.default_rng(0).integers(0, 64, 4000).astype(np.uint16)
    data = tokens.Data(numbers[:3000], numbers[3000:], [], {})
    recipe = loop.Recipe(6, batch=2, length=32)
    straight = loop.train(TINY, data, recipe, _made(tmp_path / "whole"))
    resumed = trained_in_two(TINY, data, recipe, _made(tmp_path / "parts"))
    assert straight.routers[0].gate.get_buffer("e_score_correction_bias").any()
    for name, weight in straight.state_dict().items():
        assert torch.equal(weight, resumed.state_dict()[name]), name


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder
