"""The demo model's training: its arithmetic against Hugging Face's, its gradients, its steps, its
corpus."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch

from oea_server.lab.demo.build import CONFIG
from oea_server.lab.demo.training import corpus, export, loop, tokens
from oea_server.lab.demo.training.experts import Experts
from oea_server.lab.demo.training.network import Network
from oea_server.lab.records import files

TINY: dict[str, Any] = {
    **CONFIG,
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "intermediate_size": 64,
    "moe_intermediate_size": 16,
    "num_experts": 16,
    "num_experts_per_tok": 4,
    "rope_theta": 10000.0,
    "initializer_range": 0.3,
}


@pytest.fixture
def data() -> tokens.Data:
    numbers = np.random.default_rng(0).integers(0, 64, 4000).astype(np.uint16)
    return tokens.Data(numbers[:3000], numbers[3000:], [], {})


def test_experts_gradients_are_those_of_autograd() -> None:
    torch.manual_seed(0)
    rows = torch.randn(9, 6, dtype=torch.float64, requires_grad=True)
    gate_up = torch.randn(4, 10, 6, dtype=torch.float64, requires_grad=True)
    down = torch.randn(4, 6, 5, dtype=torch.float64, requires_grad=True)
    counts = [3, 0, 5, 1]  # an expert that nobody takes has a gradient of zero
    assert torch.autograd.gradcheck(
        lambda *given: Experts.apply(*given, counts), (rows, gate_up, down)
    )


def test_network_is_hugging_faces(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    network = Network(TINY)
    for weight in network.parameters():  # as it is after the round trip through bfloat16
        weight.data = weight.data.bfloat16().float()
    export.export(network, TINY, tmp_path)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    ids = torch.randint(0, 64, (3, 20))
    with torch.no_grad():
        ours, routed = network(ids)
        found = theirs(ids, output_router_logits=True)
    torch.testing.assert_close(ours, found.logits, rtol=1e-4, atol=1e-4)
    assert routed.share.sum(dim=1).tolist() == pytest.approx([4, 4])


def test_balance_is_k_where_experts_are_equally_wanted() -> None:
    network = Network(TINY)
    for name, weight in network.named_parameters():
        if name.endswith("mlp.gate.weight"):
            weight.data.zero_()
    _, routed = network(torch.randint(0, 64, (2, 8)))
    assert routed.balance.item() == pytest.approx(4)


def trained_in_two(
    config: Mapping[str, Any], data: tokens.Data, recipe: loop.Recipe, work: Path
) -> Network:
    """A model whose training was stopped before its fifth step, and went on."""
    real = loop.batch

    def cut(given: Any, of: loop.Recipe, step: int) -> torch.Tensor:
        if step == 4:  # one step after what was saved
            raise KeyboardInterrupt
        return real(given, of, step)

    with mock.patch.object(loop, "batch", cut), pytest.raises(KeyboardInterrupt):
        loop.train(config, data, recipe, work)
    return loop.train(config, data, recipe, work)


@pytest.mark.parametrize("dense", [False, True])
def test_a_run_that_was_stopped_is_the_run_that_was_not(
    tmp_path: Path, data: tokens.Data, dense: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "SAVE_EVERY", 3)
    recipe = loop.Recipe(6, batch=2, length=32, dense=dense)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    straight = loop.train(TINY, data, recipe, whole)
    resumed = trained_in_two(TINY, data, recipe, parts)
    for name, weight in straight.state_dict().items():
        assert torch.equal(weight, resumed.state_dict()[name]), name


@pytest.mark.parametrize(
    ("dense", "first"),
    [
        (False, [5.862016678, 5.471082211, 5.658314705]),
        (True, [5.422013283, 5.783207893, 5.619688988]),
    ],
)
def test_first_steps_are_those_of_the_model_that_ships(
    tmp_path: Path,
    data: tokens.Data,
    dense: bool,
    first: list[float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What a second architecture brought changed nothing: as measured before it was there."""
    monkeypatch.setattr(loop, "NOTE_EVERY", 1)
    loop.train(TINY, data, loop.Recipe(3, batch=2, length=32, warm_up=2, dense=dense), tmp_path)
    curve = next(tmp_path.glob("*-curve.jsonl")).read_text().splitlines()
    assert [json.loads(point)["loss"] for point in curve] == pytest.approx(first, rel=1e-4)


def test_it_learns(tmp_path: Path) -> None:
    again = np.tile(np.arange(40, dtype=np.uint16), 100)
    recipe = loop.Recipe(40, batch=4, length=32, warm_up=4)
    network = loop.train(TINY, tokens.Data(again, again, [], {}), recipe, tmp_path)
    with torch.no_grad():
        assert loop.look(network, again, 32)["held_out"] < 1.0  # of 3.7 for guessing


def test_an_epoch_goes_through_every_window_once(data: tokens.Data) -> None:
    recipe = loop.Recipe(0, batch=4, length=50)
    steps = (len(data.training) - 1) // 50 // 4
    marked = data._replace(training=np.arange(len(data.training), dtype=np.uint16))
    seen = [
        int(row[0]) for step in range(steps) for row in loop.batch(marked.training, recipe, step)
    ]
    assert len(set(seen)) == len(seen) == steps * 4
    assert all(start % 50 == 0 for start in seen)
    later = [int(row[0]) for row in loop.batch(marked.training, recipe, steps)]
    assert later != seen[:4]


def test_learning_rate_rises_stays_and_falls() -> None:
    recipe = loop.Recipe(1000, warm_up=100, fall=0.3, rate=1.0)
    rates = [recipe.rate_at(step) for step in (0, 99, 500, 850, 999)]
    assert rates == pytest.approx([0.01, 1.0, 1.0, 0.5, 0.1])


def test_manual_pages_lose_their_marks_and_become_chats() -> None:
    page = (
        ".TH LS 1\n.SH NAME\nls \\- list directory contents\n.SH DESCRIPTION\n"
        "List \\fBfiles\\fR about.\n.B ls\nreads.\n.PP\nMore.\n"
    )
    text = corpus.plain_manual(page)
    assert text.startswith(
        "<|im_start|>user\nWhat is ls?<|im_end|>\n<|im_start|>assistant\nlist directory contents\n"
    )
    assert "List files about.\nls\nreads." in text
    assert "\\" not in text


def test_pages_lose_their_tags() -> None:
    page = (
        "<html><head><title>x</title></head><body><h1>One</h1><p>two &amp; three</p></body></html>"
    )
    assert corpus.plain_html(page).split() == ["One", "two", "&", "three"]


def test_nothing_held_out_is_trained_on(monkeypatch: pytest.MonkeyPatch) -> None:
    packages = [f"package-{number}" for number in range(400)]
    licence = "the same words of a licence in every package, long enough to be noticed. " * 3
    found = [
        corpus.Document(
            name, f"doc/{name}", f"{licence}\n\n" + f"what only {name} says, over and over. " * 20
        )
        for name in packages
    ]
    monkeypatch.setattr(corpus, "_all", lambda: iter(found))
    kept = list(corpus.documents())
    held = [each for each in kept if corpus.is_held_out(each.package)]
    rest = [each for each in kept if not corpus.is_held_out(each.package)]
    assert 3 <= len(held) <= 30
    assert sum(licence.strip() in each.text for each in held) == 1
    assert not any(licence.strip() in each.text for each in rest)
    assert not {each.package for each in held} & {each.package for each in rest}


def test_a_package_has_its_share_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    pages = [
        corpus.Document(
            "big", f"doc/{n}", "".join(f"line {n}.{m} of many words\n\n" for m in range(9000))
        )
        for n in range(9)
    ]
    monkeypatch.setattr(corpus, "_all", lambda: iter(pages))
    assert sum(len(each.text) for each in corpus.documents()) <= corpus.PER_PACKAGE


def test_docstrings_become_chats() -> None:
    source = 'def spam(x):\n    """Say what spam does, at some length, to be kept here."""\n'
    chats = corpus._docstrings(source, "eggs")
    assert "What does eggs.spam do?<|im_end|>" in chats
    assert chats.endswith("to be kept here.<|im_end|>\n")


def test_the_story_of_a_run_is_kept(tmp_path: Path, data: tokens.Data) -> None:
    recipe = loop.Recipe(2, batch=2, length=32)
    loop.train(TINY, data, recipe, tmp_path)
    story = export.story(recipe, data, tmp_path / "moe-curve.jsonl")
    kept = files.write(tmp_path / "training.json", story)
    assert kept["recipe"]["seed"] == recipe.seed
    assert kept["curve"][-1]["step"] == 2
    assert kept["unigram_held_out"] == pytest.approx(np.log(64), rel=0.05)  # the data is noise
