"""`docs/coverage.md` is what its generator writes: a sample of its answers here, all of them at
night."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from oea_server.engine import architectures
from oea_server.lab.recipes import commands, page
from oea_server.lab.recipes.__main__ import PAGE
from oea_server.lab.recipes.asking import ask
from tests.engine import build_blocks, checkpoints, tiny

STALE = "make it anew: python -m oea_server.lab.recipes"


def test_the_page_was_made_from_these_commands_configs_and_this_sglang() -> None:
    assert f"<!-- inputs {commands.digest()} -->" in PAGE.read_text(encoding="utf-8"), STALE


def test_a_sample_of_its_answers_are_todays() -> None:
    listed = [
        each for each in (*commands.cookbook(), *commands.recipes()) if each.hardware == "h200"
    ]
    sample = listed[::4]
    text = PAGE.read_text(encoding="utf-8").splitlines()
    for command, said in ask(sample).items():
        assert page.line(page.command_row(command, said)) in text, STALE


@pytest.mark.nightly
def test_all_of_its_answers_are_todays() -> None:
    found = ask([*commands.recipes(), *commands.cookbook(), *commands.families()])
    assert page.render(found) == PAGE.read_text(encoding="utf-8"), STALE


def test_every_command_names_a_card_and_a_model_that_are_there() -> None:
    asked = [*commands.recipes(), *commands.cookbook(), *commands.families()]
    assert {each.model for each in asked} <= {path.stem for path in commands.CONFIGS.glob("*.json")}
    assert len(commands.recipes()) + len(commands.cookbook()) == 117
    assert sum(each.stands_for for each in commands.recipes()) == 140
    assert len({each.family for each in commands.families()}) == 30


def test_what_is_said_to_be_built_in_tests_is() -> None:
    """`tests.engine.tiny` has its models built, `tests.engine.build_blocks` its blocks,
    `tests.engine.checkpoints` its checkpoints run; the demo model is a Qwen3-MoE,
    `test_serve_routers` serves a GLM."""
    refused = [config for config, _ in tiny.REFUSED.values()]
    configs = [*tiny.HANDLED.values(), *refused]
    built = {
        block
        for config in configs
        for block in architectures.ARCHITECTURES[config["architectures"][0]]
    }
    built |= {block.name for block in build_blocks.BLOCKS.values()}
    architectures_run = {each.architecture for each in checkpoints.FAMILIES.values()}
    run = {block for each in architectures_run for block in architectures.ARCHITECTURES[each]}
    known: dict[str, Any] = json.loads((Path(commands.HERE) / "evidence.json").read_text())
    assert set(known) <= built | run
    assert {block for block, level in known.items() if level == "run"} <= run
    assert [block for block, level in known.items() if level == "served"] == [
        "qwen3_moe.Qwen3MoeSparseMoeBlock",
        "glm4_moe.Glm4MoeSparseMoeBlock",
    ]
