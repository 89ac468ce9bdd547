"""The blocks of well-known families as SGLang builds them: what their routers are, and that vanilla
is SGLang's own."""

from __future__ import annotations

from functools import cached_property
from importlib.metadata import version
from typing import Any

import pytest
import torch

from oea_server.engine import fronts
from tests.engine import apart
from tests.engine.build_blocks import BLOCKS

pytestmark = pytest.mark.skipif(
    version("sglang") == "0.5.17", reason="its models are built in another way"
)

BIASED = "top-6 renormalized by sigmoid scores and a bias"
SCALED = f"{BIASED} times 2.5"
ROUTERS = {
    **dict.fromkeys(("DeepSeek-V3", "DeepSeek-V3.2", "Ling"), f"{BIASED} in 4 of 8 groups by top2"),
    "DeepSeek-V2": "top-6 in 4 of 8 groups by max",
    "DeepSeek-V4": "top-6 renormalized by sqrtsoftplus scores and a bias",
    "ERNIE-4.5": "top-6 renormalized by softmax scores and a bias",
    "Gemma-4": "top-6 renormalized times a number for each expert",
    "Command-A": "top-6 by sigmoid scores",
    "LongCat": "top-6 by softmax scores and a bias, 16 of the experts compute nothing",
    "Step-3": "top-6",
    **dict.fromkeys(("K-EXAONE", "Hunyuan-3", "MiniMax-M3"), SCALED),
}
REFUSED = {
    "DeepSeek-V4, a first layer": "experts follow the token's id, whatever the batch is",
}


@pytest.fixture(scope="module")
def built() -> Any:
    return apart.said("tests.engine.build_blocks")


@pytest.mark.parametrize("name", [name for name in BLOCKS if name not in REFUSED])
def test_vanilla_is_sglangs_own_in_every_family(
    built: dict[str, dict[str, Any]], name: str
) -> None:
    here = built[name]
    assert here.get("problem", "none was built") is None, here
    assert here["router"] == ROUTERS.get(name, BIASED)
    assert here["rows_apart"] == 0
    assert here["off_by"] < 1e-6
    assert not here["past"]


def test_what_routes_past_select_experts_is_turned_off_or_refused() -> None:
    class Front(torch.nn.Module):
        @cached_property
        def _routing_contract_ok(self) -> bool:
            return True

        def _ep_front(self) -> None: ...

    class Later(torch.nn.Module):
        def _ep_front(self) -> None: ...

    one, other = Front(), Later()
    assert one._routing_contract_ok
    one.__dict__.pop("_routing_contract_ok")  # as once weights are loaded
    assert "merged front" in fronts.problem_of(one)  # a server that is started vanilla leaves it so
    fronts.turn_off(torch.nn.ModuleList([one, other]))
    assert not one._routing_contract_ok
    assert not fronts.problem_of(one)
    assert "merged front" in fronts.problem_of(other)


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_says_why(built: dict[str, dict[str, Any]], name: str) -> None:
    assert REFUSED[name] in built[name]["problem"]
