"""The tables of SGLang's models, held to the source of the SGLang that is installed here."""

from __future__ import annotations

import ast
import re
from importlib.metadata import version

import pytest

from oea_server.engine import architectures, families, overrides
from tests.unit import model_source

NO_TARGET = re.compile("NextN|MTP|DSpark|Draft|Eagle|Assistant|Embedding|SequenceClassification")
"""Draft models, and models that generate nothing."""
NO_LANGUAGE_MODEL = {"dots3_common.dots_omni_vision.MoESwiGLUFFNFP8"}
"""Blocks of a vision tower."""
NEWEST = "0.5.23"


def served() -> dict[str, frozenset[str]]:
    found = model_source.architectures()
    return {
        name: blocks - NO_LANGUAGE_MODEL
        for name, blocks in found.items()
        if not NO_TARGET.search(name)
    }


def test_every_class_that_builds_a_router_is_in_the_table() -> None:
    blocks = model_source.builders() - NO_LANGUAGE_MODEL
    assert len(blocks) > 40
    assert sorted(blocks - set(families.BLOCKS)) == []
    if version("sglang") == NEWEST:
        assert sorted(set(families.BLOCKS) - blocks) == []


def test_every_architecture_that_builds_a_router_is_in_the_table() -> None:
    found = served()
    assert len(found) > 80
    assert sorted(set(found) - set(architectures.ARCHITECTURES)) == []
    for name, blocks in found.items():
        assert set(architectures.ARCHITECTURES[name]) <= blocks, name
    if version("sglang") == NEWEST:
        assert sorted(set(architectures.ARCHITECTURES) - set(found)) == []


ARGUMENTS = {
    "use_grouped_topk": ("groups", families.no_groups),
    "correction_bias": ("biased", families.never),
    "scoring_func": ("scoring", families.softmax),
    "custom_routing_function": ("own_function", families.never),
}
SETTLED = {"False": "use_grouped_topk"}
"""An argument that says no more than its default."""


def given(block: str) -> set[str]:
    """The arguments of a block's `TopK` that change how it routes."""
    found = set()
    for call in model_source.calls(block, "TopK"):
        keywords = {each.arg: ast.unparse(each.value) for each in call.keywords}
        if None in keywords:  # **kwargs: a dict(...) of the same class
            for each in model_source.calls(block, "dict"):
                keywords |= {inner.arg: ast.unparse(inner.value) for inner in each.keywords}
        found |= {
            name
            for name, value in keywords.items()
            if SETTLED.get(value) != name and name in ARGUMENTS
        }
    return {str(name) for name in found}


@pytest.mark.parametrize("block", sorted(families.BLOCKS))
def test_the_table_knows_what_a_block_gives_its_router(block: str) -> None:
    if block not in model_source.builders():
        assert version("sglang") != NEWEST
        return
    here = given(block)
    known = {
        name
        for name, (field, default) in ARGUMENTS.items()
        if getattr(families.BLOCKS[block], field) != default
    }
    # scores by sigmoid then, whatever it is given
    if "correction_bias" in here and "use_grouped_topk" in here:
        here, known = here - {"scoring_func"}, known - {"scoring_func"}
    if version("sglang") == NEWEST:
        assert here == known
    assert here <= known


def test_the_blocks_that_do_not_tell_their_layer() -> None:
    silent = {
        block
        for block in model_source.builders()
        for call in model_source.calls(block, "TopK")
        if not {"layer_id", None} & {each.arg for each in call.keywords}
    }
    assert silent == set(architectures.WITHOUT_LAYER.get(version("sglang"), "").split())


def test_every_name_of_a_top_k_is_known() -> None:
    names = set()
    for block in model_source.builders():
        module, _, name = block.rpartition(".")
        for node in ast.walk(model_source.modules()[module].bodies[name]):
            argument = isinstance(node, ast.keyword) and node.arg == "top_k"
            assigned = isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in (
                "self.top_k",
                "top_k",
            )
            value = node.value if argument or assigned else None  # type: ignore[attr-defined]
            text = ast.unparse(value) if value is not None else ""
            names |= set(re.findall(r"config\.(?!ffn_config)(\w+)", text))
    assert len(names) > 4
    assert sorted(names - set(overrides.TOP_K)) == []
